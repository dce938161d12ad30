// The kernel without Python: what sanitizers and fuzzers run.
//
//   kernel_driver alike FILE...   each file's lines; prints which were refused: begin, code, position
//   kernel_driver mapped FILE...  the same with most buffers mapped, which sanitizers know less of
//   kernel_driver starve FILE     the Nth allocation fails, N = 1, 2, ... until none is left to fail
//   kernel_driver full FILE       with room for little text in a batch
//
// The environment's KERNEL_SCHEMA names a file with a line per field, parents first: format, name, how many children
// follow; KERNEL_SHOWS_FLAGS has a 0 or 1 for each of the first level. With -DKERNEL_FUZZ it is a libFuzzer target.
// Whatever is not as it should be aborts.

#include <sys/mman.h>

#include <cstdint>
#include <cstdlib>

static int64_t allocations_left = -1;  // negative: all succeed

static bool may_allocate() {
  if (allocations_left == 0) return false;
  if (allocations_left > 0) allocations_left -= 1;
  return true;
}

template <typename... Rest>
static void* mapped(size_t size, Rest... rest) {
  return may_allocate() ? mmap(nullptr, size, rest...) : MAP_FAILED;
}

static void* remapped(void* at, size_t before, size_t size, int flags) {
  return may_allocate() ? mremap(at, before, size, flags) : MAP_FAILED;
}

static int64_t most_text = INT64_C(1) << 30;
static size_t mapped_from = size_t{1} << 30;
#define KERNEL_MOST_TEXT most_text
#define KERNEL_MAPPED_FROM mapped_from
#define mmap(at, ...) mapped(__VA_ARGS__)
#define mremap remapped
#include "../../collector/decoder/kernel/kernel.cpp"

#include <fstream>
#include <sstream>
#include <iostream>
#include <iterator>
#include <list>

// ---------------------------------------------------------------- judging

#define REQUIRE(condition)                                                        \
  do {                                                                            \
    if (!(condition)) {                                                           \
      std::fprintf(stderr, "%s:%d: not so: %s\n", __FILE__, __LINE__, #condition); \
      std::abort();                                                               \
    }                                                                             \
  } while (false)

struct Schema {
  std::string format, name;
  std::list<Schema> children;
  std::vector<ArrowSchema*> places;
  ArrowSchema schema{};

  explicit Schema(std::istream& lines) {
    size_t count = 0;
    REQUIRE(lines >> format >> name >> count);
    for (size_t i = 0; i < count; ++i) children.emplace_back(lines);
    for (Schema& child : children) places.push_back(&child.schema);
    schema.format = format.c_str();
    schema.name = name.c_str();
    schema.n_children = static_cast<int64_t>(count);
    schema.children = places.data();
  }
};

static const Schema& schema() {
  static std::ifstream file(std::getenv("KERNEL_SCHEMA"));
  static const Schema read(file);
  return read;
}

static Kernel* new_kernel() {
  static const std::vector<uint8_t> shows_flags = [] {
    std::istringstream given(std::getenv("KERNEL_SHOWS_FLAGS"));
    std::vector<uint8_t> read;
    for (unsigned shows = 0; given >> shows;) read.push_back(static_cast<uint8_t>(shows));
    return read;
  }();
  REQUIRE(shows_flags.size() == static_cast<size_t>(schema().schema.n_children));
  return kernel_new(&schema().schema, static_cast<int32_t>(schema().schema.n_children) - 1, shows_flags.data());
}

static bool is_valid(const ArrowArray& array, int64_t row) {
  const auto* bits = static_cast<const uint8_t*>(array.buffers[0]);
  return bits == nullptr || (bits[row / 8] >> (row % 8) & 1) != 0;
}

// What Arrow requires of an array, and how many of its parents' rows it has.
static void require_whole(const Type& type, const ArrowArray& array, int64_t rows) {
  REQUIRE(array.length == rows && array.offset == 0);
  int64_t nulls = 0;
  for (int64_t row = 0; row < rows; ++row) nulls += !is_valid(array, row);
  REQUIRE(nulls == array.null_count);
  const auto* offsets = static_cast<const int32_t*>(array.n_buffers > 1 ? array.buffers[1] : nullptr);
  const bool listed = type.kind == Kind::Text || type.kind == Kind::List || type.kind == Kind::Map;
  for (int64_t row = 0; listed && row < rows; ++row)
    REQUIRE(offsets[row] <= offsets[row + 1] && (is_valid(array, row) || offsets[row] == offsets[row + 1]));
  REQUIRE(!listed || (offsets[0] == 0 && offsets[rows] <= most_text));
  if (type.kind == Kind::Text)
    for (int64_t row = 0; row < rows; ++row) {
      const auto* text = static_cast<const uint8_t*>(array.buffers[2]);
      REQUIRE(is_utf8(text + offsets[row], text + offsets[row + 1]));
    }
  for (size_t i = 0; i < type.children.size(); ++i)
    require_whole(type.children[i], *array.children[i], listed ? offsets[rows] : rows);
}

static void require_same(const Type& type, const ArrowArray& one, const ArrowArray& other) {
  REQUIRE(one.length == other.length && one.null_count == other.null_count);
  const int64_t rows = one.length;
  for (int64_t row = 0; row < rows; ++row) REQUIRE(is_valid(one, row) == is_valid(other, row));
  if (one.n_buffers > 1 && rows != 0)
    REQUIRE(std::memcmp(one.buffers[1], other.buffers[1], values_bytes(type.kind, rows)) == 0);
  if (type.kind == Kind::Text && rows != 0) {
    const auto size = static_cast<size_t>(static_cast<const int32_t*>(one.buffers[1])[rows]);
    REQUIRE(size == 0 || std::memcmp(one.buffers[2], other.buffers[2], size) == 0);
  }
  for (size_t i = 0; i < type.children.size(); ++i)
    require_same(type.children[i], *one.children[i], *other.children[i]);
}

struct Refused {
  int64_t begin, position;
  int32_t code;
  bool operator==(const Refused& other) const {
    return begin == other.begin && position == other.position && code == other.code;
  }
};

// Not one byte more than the text: what is read behind it is seen.
static std::unique_ptr<uint8_t[]> exactly(const std::string& text) {
  std::unique_ptr<uint8_t[]> copy(new uint8_t[text.size()]);
  if (!text.empty()) std::memcpy(copy.get(), text.data(), text.size());
  return copy;
}

static int64_t rows_of(Kernel* kernel) { return kernel->columns == nullptr ? 0 : kernel->root().rows; }

static std::vector<Refused> append_all(Kernel* kernel, const std::string& text, std::string& taken) {
  const auto copy = exactly(text);
  const auto length = static_cast<int64_t>(text.size());
  std::vector<Refused> refused;
  KernelResult result{};
  for (int64_t at = 0; at < length; at = result.next) {
    const int64_t before = rows_of(kernel);
    const int32_t code = kernel_append(kernel, copy.get(), length, at, 0, &result);
    REQUIRE(rows_of(kernel) == before + result.rows && result.next > at && result.next <= length);
    taken += text.substr(static_cast<size_t>(at), static_cast<size_t>((code ? result.begin : result.next) - at));
    if (code == KERNEL_DONE) continue;
    REQUIRE(code >= KERNEL_SYNTAX && at <= result.begin && result.begin <= result.position);
    REQUIRE(result.position <= result.end && text[static_cast<size_t>(result.end)] == '\n');
    refused.push_back({result.begin, result.position, code});
  }
  return refused;
}

static ArrowArray finished(Kernel* kernel) {
  ArrowArray array{};
  const int64_t rows = rows_of(kernel);
  REQUIRE(kernel_finish(kernel, &array) == KERNEL_DONE && rows_of(kernel) == 0);
  require_whole(kernel->type, array, rows);
  return array;
}

// Refused lines leave nothing: the rows are those of the lines that are taken, in fresh columns and in used ones.
static std::vector<Refused> require_alike(const std::string& text) {
  Kernel* kernel = new_kernel();
  Kernel* other = new_kernel();
  std::string taken, ignored;
  const auto refused = append_all(kernel, text, taken);
  REQUIRE(append_all(other, taken, ignored).empty());
  ArrowArray first = finished(kernel), alone = finished(other);
  require_same(kernel->type, first, alone);
  REQUIRE(append_all(kernel, text, ignored) == refused);
  const int64_t rows = rows_of(kernel);
  append_all(kernel, taken, ignored);
  kernel_truncate(kernel, rows);
  alone.release(&alone);
  append_all(other, text, ignored);  // where the first ones were
  ArrowArray second = finished(kernel), third = finished(other);
  require_same(kernel->type, first, second);
  require_same(kernel->type, first, third);
  ArrowArray child = *second.children[0];  // taken out, as the interface permits, it outlives the rest
  second.children[0]->release = nullptr;
  second.release(&second);
  const Type type = std::move(kernel->type.children[0]);
  kernel_free(kernel);
  require_same(type, *first.children[0], child);
  first.release(&first);
  require_same(type, child, *third.children[0]);
  child.release(&child);
  third.release(&third);
  kernel_free(other);
  return refused;
}

#ifdef KERNEL_FUZZ

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  static Kernel *kernel = new_kernel(), *other = new_kernel();  // made anew for each input they would take all the time
  std::string text(reinterpret_cast<const char*>(data), size), taken, ignored;
  text.push_back('\n');
  append_all(kernel, text, taken);
  REQUIRE(append_all(other, taken, ignored).empty());
  ArrowArray one = finished(kernel), alone = finished(other);
  require_same(kernel->type, one, alone);
  one.release(&one);
  alone.release(&alone);
  return 0;
}

#else

// ---------------------------------------------------------------- allocations that fail

static void* allocated(size_t size, size_t alignment) {
  if (!may_allocate()) return nullptr;
  if (alignment == 0) return std::malloc(size == 0 ? 1 : size);
  return std::aligned_alloc(alignment, (size + alignment - 1) / alignment * alignment);
}

void* operator new(size_t size) {
  if (void* found = allocated(size, 0)) return found;
  throw std::bad_alloc();
}
void* operator new(size_t size, std::align_val_t alignment, const std::nothrow_t&) noexcept {
  return allocated(size, static_cast<size_t>(alignment));
}
void operator delete(void* at) noexcept { std::free(at); }
void operator delete(void* at, size_t) noexcept { std::free(at); }
void operator delete(void* at, std::align_val_t) noexcept { std::free(at); }

// Appends and finishes; what fails is tried again with memory. Whether an allocation failed.
static bool starved_once(const std::string& text, int64_t left, const ArrowArray& expected) {
  const auto copy = exactly(text);
  const auto length = static_cast<int64_t>(text.size());
  allocations_left = left;
  Kernel* kernel = new_kernel();
  bool failed = kernel == nullptr;
  if (failed) {
    allocations_left = -1;
    kernel = new_kernel();
  }
  KernelResult result{};
  for (int64_t at = 0; at < length; at = result.next) {
    const int64_t before = rows_of(kernel);
    const int32_t code = kernel_append(kernel, copy.get(), length, at, 0, &result);
    REQUIRE(rows_of(kernel) == before + result.rows);
    if (code != KERNEL_NO_MEMORY) continue;
    failed = true;
    allocations_left = -1;
    REQUIRE(result.next == 0 || text[static_cast<size_t>(result.next) - 1] == '\n');
  }
  ArrowArray array{};
  const int64_t rows = rows_of(kernel);
  if (kernel_finish(kernel, &array) == KERNEL_NO_MEMORY) {
    REQUIRE(array.release == nullptr && rows_of(kernel) == rows);
    failed = true;
    allocations_left = -1;
    REQUIRE(kernel_finish(kernel, &array) == KERNEL_DONE);
  }
  allocations_left = 0;  // giving back needs none
  require_same(kernel->type, array, expected);
  array.release(&array);
  kernel_free(kernel);
  allocations_left = -1;
  return failed;
}

static void starve(const std::string& text) {
  Kernel* kernel = new_kernel();
  std::string taken;
  append_all(kernel, text, taken);
  ArrowArray expected = finished(kernel);
  int64_t left = 0;
  while (starved_once(text, left, expected)) left += 1;
  expected.release(&expected);
  kernel_free(kernel);
  std::cout << left << " allocations, each failed once\n";
}

static void fill(const std::string& text) {
  most_text = 200000;
  Kernel* kernel = new_kernel();
  const auto copy = exactly(text);
  const auto length = static_cast<int64_t>(text.size());
  int64_t batches = 0, rows = 0;
  KernelResult result{};
  for (int64_t at = 0; at < length; at = result.next) {
    const int32_t code = kernel_append(kernel, copy.get(), length, at, 0, &result);
    if (code != KERNEL_FULL && result.next < length) continue;
    REQUIRE(rows_of(kernel) > 0);
    REQUIRE(result.bytes <= most_text);
    ArrowArray array = finished(kernel);
    rows += array.length;
    batches += 1;
    array.release(&array);
  }
  kernel_free(kernel);
  std::cout << rows << " rows in " << batches << " batches\n";
}

int main(int count, char** arguments) {
  const std::string what = arguments[1];
  if (what != "alike") mapped_from = 8192;
  for (int i = 2; i < count; ++i) {
    std::ifstream file(arguments[i], std::ios::binary);
    const std::string text{std::istreambuf_iterator<char>(file), {}};
    if (what == "alike" || what == "mapped")
      for (const Refused& line : require_alike(text))
        std::cout << line.begin << ' ' << line.code << ' ' << line.position << '\n';
    if (what == "starve") starve(text);
    if (what == "full") fill(text);
  }
  return 0;
}

#endif
