# A runtime image: hash-locked dependencies, the compiled kernel, no build tools, no root.
#
#   docker build -t livestream-collector .
#   docker run -e LIVESTREAM_CLIENT_ID -e LIVESTREAM_CLIENT_SECRET -v "$PWD/data:/data" \
#       livestream-collector run --url https://livestream.adobe.net/api/1/stream/NAME --output /data
#
# With journal.durability = "memory" give the container a larger /dev/shm (--shm-size).
FROM python:3.13-slim AS build
RUN apt-get update \
    && apt-get install --yes --no-install-recommends g++ \
    && rm -rf /var/lib/apt/lists/*
WORKDIR /source
ENV PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_NO_CACHE_DIR=1 PIP_ONLY_BINARY=:all:

COPY requirements-run.lock ./
RUN python -m venv /opt/collector \
    && /opt/collector/bin/pip install --require-hashes -r requirements-run.lock

# The build tools, in the locked versions, stay in this stage.
COPY requirements.lock ./
RUN python -m venv /opt/build \
    && /opt/build/bin/pip install --require-hashes -r requirements.lock

COPY pyproject.toml README.md LICENSE ./
COPY scripts/build_hook.py ./scripts/
COPY collector ./collector
RUN /opt/build/bin/pip wheel --no-deps --no-build-isolation --wheel-dir /tmp/wheel . \
    && /opt/collector/bin/pip install --no-deps --no-index /tmp/wheel/*.whl \
    && /opt/collector/bin/python -P -c "from collector.decoder.kernel.library import load; load()"

FROM python:3.13-slim
RUN useradd --system --uid 10001 --home-dir /data --create-home collector
COPY --from=build /opt/collector /opt/collector
ENV PATH=/opt/collector/bin:$PATH PYTHONUNBUFFERED=1
USER collector
WORKDIR /data
VOLUME /data
STOPSIGNAL SIGTERM
ENTRYPOINT ["livestream-collector"]
CMD ["--help"]
