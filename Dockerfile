# A runtime image: hash-locked dependencies, the compiled kernel, no build tools, no pip, no root.
#
#   docker build -t livestream-collector .
#   docker run --read-only --tmpfs /tmp --cap-drop ALL --stop-timeout 30 -e LIVESTREAM_CLIENT_ID -e LIVESTREAM_CLIENT_SECRET \
#       -v livestream:/data livestream-collector run --url https://livestream.adobe.net/api/1/stream/NAME --output /data
#
# What it writes is /data and nothing else. docs/deployment.md has secrets as files, several streams and Kubernetes.
FROM python:3.13-slim AS build
RUN apt-get update \
    && apt-get install --yes --no-install-recommends g++ \
    && rm -rf /var/lib/apt/lists/*
WORKDIR /source
ENV PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_NO_CACHE_DIR=1 PIP_ONLY_BINARY=:all:

# The build tools, in the locked versions, stay in this stage.
COPY requirements-wheel.lock ./
RUN python -m venv /opt/build \
    && /opt/build/bin/pip install --require-hashes -r requirements-wheel.lock

# For [ship] and [table]: docker build --build-arg LOCK=requirements-lake.lock
ARG LOCK=requirements-run.lock
COPY requirements-run.lock requirements-lake.lock ./
RUN python -m venv --without-pip /opt/livestream-collector \
    && /opt/build/bin/pip --python /opt/livestream-collector install --require-hashes -r "$LOCK"

COPY pyproject.toml README.md LICENSE ./
COPY scripts/build_hook.py ./scripts/
COPY collector ./collector
RUN /opt/build/bin/pip wheel --no-deps --no-build-isolation --no-index --wheel-dir /tmp/wheel . \
    && /opt/build/bin/pip --python /opt/livestream-collector install --no-deps --no-index /tmp/wheel/*.whl \
    && /opt/livestream-collector/bin/python -P -c "from collector.decoder.kernel.library import load; load()"

FROM python:3.13-slim
RUN groupadd --gid 10001 livestream \
    && useradd --uid 10001 --gid 10001 --home-dir /data --no-create-home livestream \
    && install --directory --owner 10001 --group 10001 --mode 0755 /data
COPY --from=build /opt/livestream-collector /opt/livestream-collector
ENV PATH=/opt/livestream-collector/bin:$PATH PYTHONUNBUFFERED=1
USER 10001:10001
WORKDIR /data
VOLUME /data
EXPOSE 9464
STOPSIGNAL SIGTERM
# Its event loop answers, on the page of status.listen; not asked of a proxy that the environment may name.
HEALTHCHECK --interval=30s --timeout=10s --start-period=120s CMD ["python", "-c", "\
import http.client; asked = http.client.HTTPConnection('127.0.0.1', 9464, timeout=8); \
asked.request('GET', '/healthz'); raise SystemExit(asked.getresponse().status != 200)"]
ENTRYPOINT ["livestream-collector"]
CMD ["--help"]
