// The decode kernel: JSON lines in, the columns of one Arrow record batch out, in one pass.
//
// What it is for. Decoding is the largest part of a hit's cost. The plain path (decoder/strict.py, then
// decoder/columns.py) reads every line twice, in two libraries; here a line is checked and copied into its
// columns while it is read once. The plain path stays, is the reference, and is what runs where this was not
// built: both give the same rows.
//
// What it takes. A line is taken only if it is exactly what the schema says: a JSON object whose members are all
// known, each value of its column's type, no member twice, no key twice in a map, valid UTF-8, nothing behind it.
// Anything else is refused, and nothing of the line stays in the columns; Python then repairs the line and gives it
// back, or keeps it as a reject. So what is rare or odd needs no code here: refusing is always right. Two oddities
// are not rare, since every hit of a stream may have them, and are taken: a top-level member that the schema does not
// know, whose text goes to the reserved map, and a boolean in a column of text that is to show it.
//
// The schema comes from outside, as an ArrowSchema: no name of a field stands in this file. A type is a line in
// `kind_of` and a case in `value`, `append_null`, `truncate` and `describe`.
//
//   Arrow type        JSON that fits
//   utf8              a string
//   int64             an integer of 64 bits with sign, without fraction and exponent
//   decimal(p, 0)     an integer from 0 to 2^64 - 1
//   float64           a number that a float64 gives back: its shortest decimal text is the same number
//   bool              true, false
//   struct            an object with these members only; one that is missing is null
//   list              an array
//   map<utf8, T>      an object with free keys
//   and null, wherever a value may stand
//
// How it is fast. Strings are copied 32 bytes at a time while the same 32 bytes are searched for what ends them.
// Members come in the same order again and again: each struct remembers which member followed which, and compares
// the text of that key first, quotes and colon included. Only a string with a byte over 127 is checked for UTF-8.
// Buffers are used again once Arrow has let go of the batch they were in: fresh pages cost as much as the parsing.
//
// What it may read. Up to PADDING bytes behind a line: all lines of a text but the last ones have others behind
// them, those are copied first. Each line ends in LF, which is in no JSON string and no token: it stops every loop.
//
// The interface is C, called through ctypes without the interpreter's lock. A builder is used by one thread at a
// time. Nothing here throws: want of memory is a code, after which the builder holds whole rows as before.

#include <algorithm>
#include <array>
#include <atomic>
#include <cfenv>
#include <charconv>
#include <clocale>
#include <cmath>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <locale.h>
#include <memory>
#include <mutex>
#include <new>
#include <string>
#include <sys/mman.h>
#include <utility>
#include <vector>

#if defined(__SSE2__)
#include <emmintrin.h>
#elif defined(__aarch64__)
#include <arm_neon.h>
#endif

// ---------------------------------------------------------------- the Arrow C data interface
// Source: arrow.apache.org/docs/format/CDataInterface.html

extern "C" {

struct ArrowSchema {
  const char* format;
  const char* name;
  const char* metadata;
  int64_t flags;
  int64_t n_children;
  ArrowSchema** children;
  ArrowSchema* dictionary;
  void (*release)(ArrowSchema*);
  void* private_data;
};

struct ArrowArray {
  int64_t length;
  int64_t null_count;
  int64_t offset;
  int64_t n_buffers;
  int64_t n_children;
  const void** buffers;
  ArrowArray** children;
  ArrowArray* dictionary;
  void (*release)(ArrowArray*);
  void* private_data;
};

// ---------------------------------------------------------------- what Python sees

#define EXPORTED __attribute__((visibility("default")))
#define SELDOM __attribute__((noinline, cold))
#define INLINED __attribute__((always_inline)) inline  // half of the time: 4 % less of it
#ifndef KERNEL_SOURCE
#define KERNEL_SOURCE ""
#endif

enum : int32_t {
  KERNEL_DONE = 0,       // every line of the text is taken
  KERNEL_NO_MEMORY = 1,  // the rows before are kept
  KERNEL_FULL = 2,       // offsets would pass 31 bits: finish the batch, then go on at `next`
  KERNEL_SYNTAX = 10,    // from here on: a line was refused. No JSON
  KERNEL_TYPE = 11,      // a value of another type than its column
  KERNEL_RANGE = 12,     // a number that its column cannot hold
  KERNEL_UNKNOWN = 13,   // a member that the schema does not know
  KERNEL_DOUBLED = 14,   // a member or a map's key that is there twice
  KERNEL_ENCODING = 15,  // no UTF-8, or half of a surrogate pair
};

// Where an append stopped. Offsets are those of the text.
struct KernelResult {
  int64_t rows;      // appended by this call
  int64_t next;      // where to go on: behind the last line that was taken or refused
  int64_t begin;     // of the refused line
  int64_t end;       // of the refused line, its LF not included
  int64_t position;  // of what was refused, in the text
  int64_t bytes;     // that the columns hold now
  int64_t mended;    // of these rows: with something in the reserved map that was not sent there
};

// The values of a top-level column of fixed width, as they are until the next call.
struct KernelView {
  const void* values;
  const uint8_t* validity;  // one bit a row, lowest first; NULL: no value is null
  int64_t rows;
};

}  // extern "C"

namespace {

constexpr size_t PADDING = 64;
constexpr size_t ALIGNMENT = 64;
#ifdef KERNEL_MOST_TEXT  // tests come to it sooner
#define MOST_TEXT KERNEL_MOST_TEXT
#else
constexpr int64_t MOST_TEXT = INT32_MAX - static_cast<int64_t>(PADDING);
#endif
// Buffers of so many bytes and more are mapped: they grow without a copy, and leave no holes in the heap.
#ifdef KERNEL_MAPPED_FROM  // as above
#define MAPPED_FROM KERNEL_MAPPED_FROM
#else
constexpr size_t MAPPED_FROM = 64 << 10;
#endif
constexpr int64_t FIRST_ROWS = 1024;
constexpr int NO_MEMBER = -1;
constexpr int MOST_DEPTH = 32;  // of a value that the schema does not know
constexpr size_t MOST_MEMBERS = 512;

// ---------------------------------------------------------------- memory

struct Buffer {
  uint8_t* at = nullptr;
  size_t capacity = 0;

  Buffer() = default;
  Buffer(const Buffer&) = delete;
  Buffer& operator=(const Buffer&) = delete;
  ~Buffer() { give_back(); }

  // Keeps the first `used` bytes. False: there is no memory, and nothing has changed.
  SELDOM bool grow(size_t used, size_t wanted) {
    size_t larger = capacity < 4096 ? 4096 : capacity;
    while (larger < wanted) larger *= 2;
    void* fresh = nullptr;
    if (capacity >= MAPPED_FROM) {
      fresh = mremap(at, capacity, larger, MREMAP_MAYMOVE);
    } else if (larger >= MAPPED_FROM) {
      fresh = mmap(nullptr, larger, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    } else {
      fresh = ::operator new(larger, std::align_val_t{ALIGNMENT}, std::nothrow);
    }
    if (fresh == nullptr || fresh == MAP_FAILED) return false;
    if (capacity < MAPPED_FROM) {
      if (used != 0) std::memcpy(fresh, at, used);
      give_back();
    }
    at = static_cast<uint8_t*>(fresh);
    capacity = larger;
    return true;
  }

 private:
  void give_back() {
    if (capacity >= MAPPED_FROM)
      munmap(at, capacity);
    else
      ::operator delete(at, std::align_val_t{ALIGNMENT});
  }
};

enum class Kind : uint8_t { Text, Integer, Unsigned, Number, Flag, Struct, List, Map };

struct Key {
  std::string token;  // quotes and colon included
  size_t length = 0;  // of the token
  std::array<uint64_t, 2> words{};  // its first bytes without the colon, then zeros
  std::array<uint64_t, 2> masks{};  // which bytes of these are the token's
};

// What of a column stays the same: made from the schema once.
struct Type {
  Kind kind = Kind::Text;
  std::vector<Type> children;
  std::vector<Key> keys;       // of a struct
  std::vector<int16_t> after;  // the member that last followed each one; [0] is the first
  int reserved = NO_MEMBER;    // the map of a line's oddities, which only a repaired line may have itself
  bool shows_flags = false;    // of a text: a boolean is shown, and is an oddity
};

// One Arrow array in the making. `rows` says how many values it has; all else follows from that.
struct Column {
  int64_t rows = 0;
  int64_t room = 0;  // rows that `values` and `validity` have room for
  Buffer values;     // numbers, bits, or offsets of 32 bits
  Buffer validity;
  bool has_nulls = false;
  Buffer text;
  std::vector<std::unique_ptr<Column>> children;

  int32_t* offsets() { return reinterpret_cast<int32_t*>(values.at); }
};

size_t width_of(Kind kind) {
  switch (kind) {
    case Kind::Unsigned: return 16;
    case Kind::Integer:
    case Kind::Number: return 8;
    case Kind::Text:
    case Kind::List:
    case Kind::Map: return 4;
    default: return 0;
  }
}

size_t values_bytes(Kind kind, int64_t rows) {
  const size_t count = static_cast<size_t>(rows);
  if (kind == Kind::Flag) return (count + 7) / 8;
  if (kind == Kind::Text || kind == Kind::List || kind == Kind::Map) return (count + 1) * 4;
  return count * width_of(kind);
}

SELDOM bool make_room(const Type& type, Column& column) {
  const int64_t larger = column.room == 0 ? FIRST_ROWS : column.room * 2;
  const size_t bits = static_cast<size_t>(larger + 7) / 8;
  if (type.kind != Kind::Struct) {
    const size_t used = column.room == 0 ? 0 : values_bytes(type.kind, column.rows);
    if (!column.values.grow(used, values_bytes(type.kind, larger))) return false;
    if (column.room == 0 && width_of(type.kind) == 4) column.offsets()[0] = 0;
  }
  if (!column.validity.grow(column.has_nulls ? static_cast<size_t>(column.rows + 7) / 8 : 0, bits)) return false;
  column.room = larger;
  return true;
}

inline bool has_room(const Type& type, Column& column) {
  return column.rows < column.room || make_room(type, column);
}

inline void set_bit(uint8_t* bits, int64_t at, bool on) {
  const uint8_t mask = static_cast<uint8_t>(1U << (at & 7));
  if ((at & 7) == 0) bits[at >> 3] = 0;  // the first of a byte: what stood there is another batch's
  if (on) bits[at >> 3] |= mask;
}

inline void end_value(Column& column) {
  if (column.has_nulls) set_bit(column.validity.at, column.rows, true);
  column.rows += 1;
}

void begin_nulls(Column& column) {
  const size_t whole = static_cast<size_t>(column.rows >> 3);
  std::memset(column.validity.at, 0xFF, whole);
  const unsigned rest = static_cast<unsigned>(column.rows & 7);
  if (rest != 0) column.validity.at[whole] = static_cast<uint8_t>((1U << rest) - 1);
  column.has_nulls = true;
}

bool append_null(const Type& type, Column& column) {
  if (!has_room(type, column)) return false;
  if (!column.has_nulls) begin_nulls(column);
  switch (type.kind) {
    case Kind::Text:
    case Kind::List:
    case Kind::Map: column.offsets()[column.rows + 1] = column.offsets()[column.rows]; break;
    case Kind::Flag: set_bit(column.values.at, column.rows, false); break;
    case Kind::Integer:
    case Kind::Number: std::memset(column.values.at + column.rows * 8, 0, 8); break;
    case Kind::Unsigned: std::memset(column.values.at + column.rows * 16, 0, 16); break;
    case Kind::Struct:
      for (size_t i = 0; i < type.children.size(); ++i)
        if (!append_null(type.children[i], *column.children[i])) return false;
      break;
  }
  set_bit(column.validity.at, column.rows, false);
  column.rows += 1;
  return true;
}

void cut_bits(uint8_t* bits, int64_t rows) {
  if ((rows & 7) != 0) bits[rows >> 3] &= static_cast<uint8_t>((1U << (rows & 7)) - 1);
}

void truncate(const Type& type, Column& column, int64_t rows) {
  if (column.rows < rows) return;  // a child that its parent had not come to
  column.rows = rows;
  if (column.has_nulls) cut_bits(column.validity.at, rows);
  if (type.kind == Kind::Flag && column.room != 0) cut_bits(column.values.at, rows);
  if (type.kind == Kind::Struct)
    for (size_t i = 0; i < type.children.size(); ++i) truncate(type.children[i], *column.children[i], rows);
  if (type.kind == Kind::List || type.kind == Kind::Map)
    truncate(type.children[0], *column.children[0], column.room == 0 ? 0 : column.offsets()[rows]);
}

int64_t bytes_of(const Type& type, const Column& column) {
  int64_t bytes = static_cast<int64_t>(values_bytes(type.kind, column.rows)) + (column.has_nulls ? column.rows / 8 : 0);
  if (type.kind == Kind::Text && column.room != 0) bytes += const_cast<Column&>(column).offsets()[column.rows];
  for (size_t i = 0; i < type.children.size(); ++i) bytes += bytes_of(type.children[i], *column.children[i]);
  return bytes;
}

std::unique_ptr<Column> new_column(const Type& type) {
  auto column = std::make_unique<Column>();
  for (const Type& child : type.children) column->children.push_back(new_column(child));
  return column;
}

void clear(Column& column) {
  column.rows = 0;
  column.has_nulls = false;
  for (auto& child : column.children) clear(*child);
}

// ---------------------------------------------------------------- strings

// Copies 16 bytes; one bit for each, lowest first: is it a quote, a backslash or a control character, is it over 127.
struct Marks {
  uint32_t ends;
  uint32_t high;
};

#if defined(__SSE2__)

inline Marks copy_16(const uint8_t* from, uint8_t* to) {
  const __m128i bytes = _mm_loadu_si128(reinterpret_cast<const __m128i*>(from));
  _mm_storeu_si128(reinterpret_cast<__m128i*>(to), bytes);
  const __m128i control = _mm_cmpeq_epi8(_mm_min_epu8(bytes, _mm_set1_epi8(0x1F)), bytes);
  const __m128i quote = _mm_cmpeq_epi8(bytes, _mm_set1_epi8('"'));
  const __m128i escape = _mm_cmpeq_epi8(bytes, _mm_set1_epi8('\\'));
  const auto bits = [](__m128i mask) { return static_cast<uint32_t>(_mm_movemask_epi8(mask)); };
  return {bits(_mm_or_si128(control, _mm_or_si128(quote, escape))), bits(bytes)};
}

#elif defined(__aarch64__)

inline Marks copy_16(const uint8_t* from, uint8_t* to) {
  const uint8x16_t bytes = vld1q_u8(from);
  vst1q_u8(to, bytes);
  const uint8x16_t found = vorrq_u8(vcltq_u8(bytes, vdupq_n_u8(0x20)),
                                    vorrq_u8(vceqq_u8(bytes, vdupq_n_u8('"')), vceqq_u8(bytes, vdupq_n_u8('\\'))));
  const auto bits = [](uint8x16_t mask) {
    static const uint8_t PLACES[16] = {1, 2, 4, 8, 16, 32, 64, 128, 1, 2, 4, 8, 16, 32, 64, 128};
    const uint8x16_t places = vandq_u8(mask, vld1q_u8(PLACES));
    return vaddv_u8(vget_low_u8(places)) | static_cast<uint32_t>(vaddv_u8(vget_high_u8(places))) << 8;
  };
  return {bits(found), bits(vcgeq_u8(bytes, vdupq_n_u8(0x80)))};
}

#else

inline Marks copy_16(const uint8_t* from, uint8_t* to) {
  Marks marks{0, 0};
  for (unsigned i = 0; i < 16; ++i) {
    const uint8_t byte = to[i] = from[i];
    marks.ends |= static_cast<uint32_t>(byte == '"' || byte == '\\' || byte < 0x20) << i;
    marks.high |= static_cast<uint32_t>(byte >> 7) << i;
  }
  return marks;
}

#endif

// Twice as much; how many of the bytes come before one that ends a string. `high`: not 0 if one of these is over 127.
// Most strings are no longer: then no branch depends on their length.
constexpr unsigned STEP = 32;

inline unsigned copy_step(const uint8_t* from, uint8_t* to, uint32_t& high) {
  const Marks low = copy_16(from, to);
  const Marks top = copy_16(from + 16, to + 16);
  const uint32_t ends = low.ends | top.ends << 16;
  const uint32_t over = low.high | top.high << 16;
  if (ends == 0) {
    high |= over;
    return STEP;
  }
  high |= over & ((ends & (0U - ends)) - 1);  // of those before the first end
  return static_cast<unsigned>(__builtin_ctz(ends));
}

// Source: Unicode 16, table 3-7, well-formed UTF-8 byte sequences.
bool is_utf8(const uint8_t* at, const uint8_t* end) {
  const auto follows = [&](int count, uint8_t least, uint8_t most) {
    if (end - at <= count || at[1] < least || at[1] > most) return false;
    for (int i = 2; i <= count; ++i)
      if ((at[i] & 0xC0) != 0x80) return false;
    at += count + 1;
    return true;
  };
  while (at < end) {
    const uint8_t lead = *at;
    bool well = false;
    if (lead < 0x80) {
      at += 1;
      well = true;
    } else if (lead >= 0xC2 && lead <= 0xDF) {
      well = follows(1, 0x80, 0xBF);
    } else if (lead >= 0xE0 && lead <= 0xEF) {
      well = follows(2, lead == 0xE0 ? 0xA0 : 0x80, lead == 0xED ? 0x9F : 0xBF);
    } else if (lead >= 0xF0 && lead <= 0xF4) {
      well = follows(3, lead == 0xF0 ? 0x90 : 0x80, lead == 0xF4 ? 0x8F : 0xBF);
    }
    if (!well) return false;
  }
  return true;
}

int hex_of(uint8_t digit) {
  if (digit >= '0' && digit <= '9') return digit - '0';
  const uint8_t lower = digit | 0x20;
  return lower >= 'a' && lower <= 'f' ? lower - 'a' + 10 : -1;
}

// Four hexadecimal digits; -1: they are none. Stops at the first that is none.
int code_unit(const uint8_t* at) {
  int code = 0;
  for (int i = 0; i < 4; ++i) {
    const int digit = hex_of(at[i]);
    if (digit < 0) return -1;
    code = code * 16 + digit;
  }
  return code;
}

uint8_t* put_utf8(uint8_t* to, uint32_t code) {
  const auto low = [&](int shift) { return static_cast<uint8_t>(0x80 | ((code >> shift) & 0x3F)); };
  if (code < 0x80) {
    *to++ = static_cast<uint8_t>(code);
  } else if (code < 0x800) {
    *to++ = static_cast<uint8_t>(0xC0 | (code >> 6));
    *to++ = low(0);
  } else if (code < 0x10000) {
    *to++ = static_cast<uint8_t>(0xE0 | (code >> 12));
    *to++ = low(6);
    *to++ = low(0);
  } else {
    *to++ = static_cast<uint8_t>(0xF0 | (code >> 18));
    *to++ = low(12);
    *to++ = low(6);
    *to++ = low(0);
  }
  return to;
}

// ---------------------------------------------------------------- keys that are twice in a map

inline uint64_t mixed(uint64_t a, uint64_t b) {
  const unsigned __int128 product = static_cast<unsigned __int128>(a) * b;
  return static_cast<uint64_t>(product) ^ static_cast<uint64_t>(product >> 64);
}

// Up to 16 bytes as words, with zeros behind them. Reads 16, whatever the length.
inline std::array<uint64_t, 2> words_of(const uint8_t* at, size_t length) {
  const auto mask = [](size_t bytes) { return bytes >= 8 ? ~0ULL : (1ULL << (bytes * 8)) - 1; };
  std::array<uint64_t, 2> words;
  std::memcpy(words.data(), at, sizeof words);
  words[0] &= mask(length);
  words[1] &= length > 8 ? mask(length - 8) : 0;
  return words;
}

// The keys of the map in hand. Cleared by counting up, so that a map costs what its keys cost.
class Seen {
 public:
  void begin() {
    count_ = 0;
    if (++turn_ == 0) {  // once in 2^32 maps
      for (Slot& slot : slots_) slot.turn = 0;
      turn_ = 1;
    }
  }

  // Whether the last of `keys` is new. `first` is the map's first one. Throws bad_alloc.
  bool add(Column& keys, int64_t first) {
    if ((++count_) * 2 > slots_.size()) enlarge(keys, first);
    return insert(keys, first, static_cast<uint32_t>(keys.rows - 1 - first));
  }

 private:
  using Words = std::array<uint64_t, 2>;

  struct Slot {
    Words begin{};  // of the key: most are no longer
    uint32_t turn = 0;
    uint32_t key = 0;
  };

  // There are PADDING bytes behind the text of a column.
  bool insert(Column& keys, int64_t first, uint32_t key) {
    const auto [at, length] = bytes(keys, first + key);
    const Words begin = words_of(at, length);
    const size_t mask = slots_.size() - 1;
    for (size_t i = hash_of(begin, at, length) & mask;; i = (i + 1) & mask) {
      Slot& slot = slots_[i];
      if (slot.turn != turn_) {
        slot = {begin, turn_, key};
        return true;
      }
      if (slot.begin != begin) continue;
      const auto [other, other_length] = bytes(keys, first + slot.key);
      if (other_length == length && std::memcmp(other, at, length) == 0) return false;
    }
  }

  // Of all bytes, so that long keys with equal ends are not all in one place.
  uint64_t hash_of(const Words& begin, const uint8_t* at, size_t length) const {
    uint64_t hash = mixed(begin[0] ^ seed_, begin[1] ^ ~seed_);
    for (size_t done = sizeof begin; done < length; done += sizeof begin) {
      const Words more = words_of(at + done, length - done);
      hash = mixed(hash ^ more[0], more[1] ^ ~seed_);
    }
    return hash;
  }

  void enlarge(Column& keys, int64_t first) {
    slots_.assign(slots_.size() * 2, Slot{});
    turn_ = 1;
    for (int64_t key = first; key < keys.rows - 1; ++key) insert(keys, first, static_cast<uint32_t>(key - first));
  }

  static std::pair<const uint8_t*, size_t> bytes(Column& keys, int64_t row) {
    const int32_t* offsets = keys.offsets() + row;
    return {keys.text.at + offsets[0], static_cast<size_t>(offsets[1] - offsets[0])};
  }

  std::vector<Slot> slots_ = std::vector<Slot>(256);
  size_t count_ = 0;
  uint32_t turn_ = 0;
  uint64_t seed_ = reinterpret_cast<uintptr_t>(this) ^ 0x94D049BB133111EBULL;  // differs by run: the address does
};

// ---------------------------------------------------------------- numbers

constexpr int SURE_DIGITS = 15;  // so many come back from a float64 (IEEE 754: DBL_DIG)

struct Decimal {  // digits without zeros at either end, and the exponent of the last one
  std::string digits;
  int64_t exponent = 0;
  bool operator==(const Decimal& other) const {
    return digits == other.digits && (digits.empty() || exponent == other.exponent);
  }
};

Decimal decimal_of(const char* at, const char* end) {
  Decimal number;
  int64_t point = 0;
  bool behind = false;
  for (; at < end && *at != 'e' && *at != 'E'; ++at) {
    if (*at == '.') {
      behind = true;
    } else if (*at >= '0' && *at <= '9') {
      number.digits.push_back(*at);
      point -= behind;
    }
  }
  if (at < end) {
    at += at[1] == '+' ? 2 : 1;
    int64_t given = 0;
    if (std::from_chars(at, end, given).ec != std::errc()) given = *at == '-' ? INT32_MIN : INT32_MAX;
    point += given;
  }
  number.digits.erase(0, std::min(number.digits.find_first_not_of('0'), number.digits.size()));
  while (!number.digits.empty() && number.digits.back() == '0') {
    number.digits.pop_back();
    point += 1;
  }
  number.exponent = point;
  return number;
}

// Digits, point and exponent whatever the locale of the process is.
class PlainNumbers {
 public:
  PlainNumbers() : before_(uselocale(plain())) {}
  PlainNumbers(const PlainNumbers&) = delete;
  PlainNumbers& operator=(const PlainNumbers&) = delete;
  ~PlainNumbers() { uselocale(before_); }

 private:
  static locale_t plain() {
    static const locale_t made = newlocale(LC_ALL_MASK, "C", nullptr);
    return made;
  }
  locale_t before_;
};

// Whether the text, a JSON number, is one that a float64 gives back; the slow way, for few. Throws bad_alloc.
bool exact_number(const uint8_t* at, const uint8_t* end, double& number) {
  const PlainNumbers plain;
  const std::string text(at, end);
  number = std::strtod(text.c_str(), nullptr);
  if (!std::isfinite(number)) return false;
  for (int digits = 1; digits <= 17; ++digits) {  // 17 always come back (IEEE 754: DBL_DECIMAL_DIG)
    for (const int rounding : {FE_TONEAREST, FE_UPWARD}) {  // beside a power of two the nearest may be another's
      std::array<char, 40> shown{};
      std::fesetround(rounding);
      const int length = std::snprintf(shown.data(), shown.size(), "%.*e", digits - 1, std::fabs(number));
      std::fesetround(FE_TONEAREST);
      if (std::strtod(shown.data(), nullptr) == std::fabs(number))
        return decimal_of(text.data(), text.data() + text.size()) == decimal_of(shown.data(), shown.data() + length);
    }
  }
  return false;
}

constexpr std::array<double, SURE_DIGITS + 1> POWERS = {1e0, 1e1, 1e2,  1e3,  1e4,  1e5,  1e6,  1e7,
                                                        1e8, 1e9, 1e10, 1e11, 1e12, 1e13, 1e14, 1e15};

inline bool is_digit(uint8_t byte) { return static_cast<uint8_t>(byte - '0') < 10; }

// The same for numbers of few digits and no exponent: all others are left to the slow way.
bool short_number(const uint8_t* at, const uint8_t* end, double& number) {
  const bool negative = *at == '-';
  uint64_t sum = 0;
  int digits = 0;
  int fraction = 0;
  bool behind = false;
  for (at += negative; at < end; ++at) {
    if (is_digit(*at)) {
      if (++digits > SURE_DIGITS) return false;
      sum = sum * 10 + (*at - '0');
      fraction += behind;
    } else if (*at == '.') {
      behind = true;
    } else {
      return false;
    }
  }
  number = static_cast<double>(sum) / POWERS[static_cast<size_t>(fraction)];  // both exact: it is rounded once
  number = negative ? -number : number;
  return true;
}

inline bool is_word(uint8_t byte) {
  return is_digit(byte) || static_cast<uint8_t>((byte | 0x20) - 'a') < 26 || byte == '_';
}

// ---------------------------------------------------------------- a line

class Parser {
 public:
  Parser(Seen& seen, Seen& spills, const uint8_t* begin, bool repaired)
      : seen_(seen), spills_(spills), at_(begin), repaired_(repaired) {}

  int32_t code() const { return code_; }
  bool mended() const { return mended_; }
  const uint8_t* at() const { return at_; }

  // Up to its LF.
  bool line(Type& type, Column& column) {
    skip_space();
    if (*at_ != '{') return refuse(KERNEL_SYNTAX);
    ++at_;
    if (!object(type, column)) return false;
    skip_space();
    return *at_ == '\n' || refuse(KERNEL_SYNTAX);
  }

 private:
  bool refuse(int32_t code) {
    code_ = code;
    return false;
  }

  void skip_space() {
    while (*at_ == ' ' || *at_ == '\t' || *at_ == '\r') ++at_;
  }

  // The next byte that is no white space, which is not passed.
  uint8_t next() {
    if (*at_ <= ' ') skip_space();
    return *at_;
  }

  // What follows an item: a comma, then there is more, or the bracket that ends them all. Passes it.
  bool comma(uint8_t last, bool& more) {
    const uint8_t behind = next();
    more = behind == ',';
    if (!more && behind != last) return refuse(KERNEL_SYNTAX);
    ++at_;
    return true;
  }

  bool value(Type& type, Column& column) {
    const uint8_t first = next();
    if (first == 'n') return null(type, column);
    switch (type.kind) {
      case Kind::Text:
        if (first != '"') break;
        ++at_;
        return text(type, column);
      case Kind::Integer: return integer(type, column);
      case Kind::Unsigned: return unsigned_integer(type, column);
      case Kind::Number: return number(type, column);
      case Kind::Flag: return flag(type, column);
      case Kind::Struct:
        if (first != '{') break;
        ++at_;
        return object(type, column);
      case Kind::List:
        if (first != '[') break;
        ++at_;
        return list(type, column);
      case Kind::Map:
        if (first != '{') break;
        ++at_;
        return map(type, column);
    }
    return refuse(KERNEL_TYPE);
  }

  bool null(Type& type, Column& column) {
    if (std::memcmp(at_, "null", 4) != 0) return refuse(KERNEL_SYNTAX);
    at_ += 4;
    return append_null(type, column) || refuse(KERNEL_NO_MEMORY);
  }

  bool flag(Type& type, Column& column) {
    const bool on = *at_ == 't';
    if (std::memcmp(at_, on ? "true" : "false", on ? 4 : 5) != 0) return refuse(KERNEL_TYPE);
    at_ += on ? 4 : 5;
    if (!has_room(type, column)) return refuse(KERNEL_NO_MEMORY);
    set_bit(column.values.at, column.rows, on);
    end_value(column);
    return true;
  }

  // Digits without sign. What follows is looked at by whoever expects a comma or an end.
  bool digits(uint64_t& number) {
    const uint8_t* first = at_;
    uint64_t sum = 0;
    while (is_digit(*at_) && at_ - first < 19) sum = sum * 10 + (*at_++ - '0');
    if (at_ == first) return refuse(KERNEL_TYPE);
    if (*first == '0' && at_ - first > 1) return refuse(KERNEL_SYNTAX);
    if (is_digit(*at_)) {  // the twentieth
      if (__builtin_mul_overflow(sum, 10ULL, &sum) || __builtin_add_overflow(sum, *at_ - '0', &sum))
        return refuse(KERNEL_RANGE);
      ++at_;
      if (is_digit(*at_)) return refuse(KERNEL_RANGE);
    }
    if (*at_ == '.' || *at_ == 'e' || *at_ == 'E') return refuse(KERNEL_TYPE);
    number = sum;
    return true;
  }

  bool integer(Type& type, Column& column) {
    const bool negative = *at_ == '-';
    at_ += negative;
    uint64_t size = 0;
    if (!digits(size)) return false;
    if (size > (1ULL << 63) - !negative) return refuse(KERNEL_RANGE);
    if (!has_room(type, column)) return refuse(KERNEL_NO_MEMORY);
    const uint64_t bits = negative ? 0 - size : size;
    std::memcpy(column.values.at + column.rows * 8, &bits, 8);
    end_value(column);
    return true;
  }

  bool unsigned_integer(Type& type, Column& column) {
    const bool negative = *at_ == '-';
    at_ += negative;
    uint64_t words[2] = {0, 0};
    if (!digits(words[0])) return false;
    if (negative && words[0] != 0) return refuse(KERNEL_RANGE);
    if (!has_room(type, column)) return refuse(KERNEL_NO_MEMORY);
    std::memcpy(column.values.at + column.rows * 16, words, 16);
    end_value(column);
    return true;
  }

  bool number(Type& type, Column& column) {
    const uint8_t* first = at_;
    if (*at_ != '-' && !is_digit(*at_)) return refuse(KERNEL_TYPE);
    if (!skip_number()) return false;
    double result = 0;
    if (!short_number(first, at_, result) && !exact_number(first, at_, result)) return refuse(KERNEL_RANGE);
    if (!has_room(type, column)) return refuse(KERNEL_NO_MEMORY);
    std::memcpy(column.values.at + column.rows * 8, &result, 8);
    end_value(column);
    return true;
  }

  // Behind the opening quote.
  INLINED bool text(const Type& type, Column& column) {
    if (!has_room(type, column)) return refuse(KERNEL_NO_MEMORY);
    const size_t begin = static_cast<size_t>(column.offsets()[column.rows]);
    size_t used = begin;
    uint32_t high = 0;
    const uint8_t* at = at_;  // bytes that are written could be anything's, so a member would be read again each time
    for (;;) {
      if (used + PADDING > column.text.capacity && !column.text.grow(used, used + PADDING))
        return refuse(KERNEL_NO_MEMORY);
      const unsigned copied = copy_step(at, column.text.at + used, high);
      at += copied;
      used += copied;
      if (copied == STEP) continue;
      if (*at == '"') break;
      at_ = at;
      if (*at != '\\') return refuse(KERNEL_SYNTAX);
      if (!escape(column.text.at, used)) return false;
      at = at_;
    }
    at_ = at + 1;
    if (high != 0 && !is_utf8(column.text.at + begin, column.text.at + used)) return refuse(KERNEL_ENCODING);
    column.offsets()[column.rows + 1] = static_cast<int32_t>(used);
    end_value(column);
    return true;
  }

  SELDOM bool escape(uint8_t* text, size_t& used) {
    ++at_;
    const uint8_t letter = *at_++;
    switch (letter) {
      case '"':
      case '\\':
      case '/': text[used++] = letter; return true;
      case 'b': text[used++] = '\b'; return true;
      case 'f': text[used++] = '\f'; return true;
      case 'n': text[used++] = '\n'; return true;
      case 'r': text[used++] = '\r'; return true;
      case 't': text[used++] = '\t'; return true;
      case 'u': break;
      default: --at_; return refuse(KERNEL_SYNTAX);
    }
    int code = code_unit(at_);
    if (code < 0) return refuse(KERNEL_SYNTAX);
    at_ += 4;
    if (code >= 0xD800 && code <= 0xDFFF) {
      const int low = code < 0xDC00 && at_[0] == '\\' && at_[1] == 'u' ? code_unit(at_ + 2) : -1;
      if (low < 0xDC00 || low > 0xDFFF) return refuse(KERNEL_ENCODING);
      at_ += 6;
      code = 0x10000 + ((code - 0xD800) << 10) + (low - 0xDC00);
    }
    used = static_cast<size_t>(put_utf8(text + used, static_cast<uint32_t>(code)) - text);
    return true;
  }

  // Behind the opening brace. `previous` counts from 1; 0 is the brace.
  bool object(Type& type, Column& column) {
    if (!has_room(type, column)) return refuse(KERNEL_NO_MEMORY);
    std::array<uint64_t, MOST_MEMBERS / 64> given{};
    if (next() == '}') {
      ++at_;
    } else {
      for (size_t previous = 0;;) {
        const int member = key(type, previous);
        if (member == NO_MEMBER) {
          if (!unknown(type, column)) return false;
        } else {
          const size_t child = static_cast<size_t>(member);
          uint64_t& word = given[child / 64];
          const uint64_t bit = 1ULL << (child % 64);
          if ((word & bit) != 0) return refuse(KERNEL_DOUBLED);
          word |= bit;
          if (type.children[child].shows_flags && (next() == 't' || *at_ == 'f')) {
            if (!shown_flag(type, column, child)) return false;
          } else if (!value(type.children[child], *column.children[child])) {
            return false;
          }
          previous = child + 1;
        }
        bool more = false;
        if (!comma('}', more)) return false;
        if (!more) break;
        next();
      }
    }
    if (spilled_ && type.reserved != NO_MEMBER) {
      const size_t child = static_cast<size_t>(type.reserved);
      given[child / 64] |= 1ULL << (child % 64);
      Column& map = *column.children[child];
      map.offsets()[map.rows + 1] = static_cast<int32_t>(map.children[0]->rows);
      end_value(map);
      spilled_ = false;
    }
    for (size_t first = 0; first < type.children.size(); first += 64) {
      const size_t count = std::min<size_t>(64, type.children.size() - first);
      uint64_t missing = ~given[first / 64] & (count == 64 ? ~0ULL : (1ULL << count) - 1);
      for (; missing != 0; missing &= missing - 1) {
        const size_t child = first + static_cast<size_t>(__builtin_ctzll(missing));
        if (!append_null(type.children[child], *column.children[child])) return refuse(KERNEL_NO_MEMORY);
      }
    }
    end_value(column);
    return true;
  }

  // A member of the line that the schema does not know, of a plain name: its text goes to the reserved map. What is
  // not so plain is refused, and the repair takes it apart.
  bool unknown(Type& type, Column& column) {
    if (code_ != KERNEL_UNKNOWN || type.reserved == NO_MEMBER || repaired_) return false;
    code_ = KERNEL_DONE;
    const uint8_t* name = ++at_;
    while (is_word(*at_)) ++at_;
    const uint8_t* end = at_;
    if (end == name || *at_ != '"') return refuse(KERNEL_UNKNOWN);
    ++at_;
    if (next() != ':') return refuse(KERNEL_SYNTAX);
    ++at_;
    next();
    const uint8_t* begin = at_;
    if (!skip(MOST_DEPTH)) return false;
    if (!is_utf8(begin, at_)) return refuse(KERNEL_ENCODING);
    return spill(type, column, name, end, begin);
  }

  // A boolean in a column of text: shown as its text there, and kept as what it is.
  bool shown_flag(Type& type, Column& column, size_t child) {
    const uint8_t* begin = at_;
    if (type.reserved == NO_MEMBER || repaired_ || !skip(0)) return refuse(KERNEL_TYPE);
    if (!append_text(type.children[child], *column.children[child], begin, at_)) return refuse(KERNEL_NO_MEMORY);
    const Key& key = type.keys[child];
    const auto* name = reinterpret_cast<const uint8_t*>(key.token.data()) + 1;
    return spill(type, column, name, name + key.length - 3, begin);
  }

  // An entry of the reserved map: from `begin` up to here is its value.
  bool spill(Type& type, Column& column, const uint8_t* name, const uint8_t* name_end, const uint8_t* begin) {
    const size_t child = static_cast<size_t>(type.reserved);
    Type& entry = type.children[child].children[0];
    Column& map = *column.children[child];
    Column& entries = *map.children[0];
    if (!has_room(type.children[child], map) || !has_room(entry, entries)) return refuse(KERNEL_NO_MEMORY);
    if (!append_text(entry.children[0], *entries.children[0], name, name_end) ||
        !append_text(entry.children[1], *entries.children[1], begin, at_))
      return refuse(KERNEL_NO_MEMORY);
    if (!spilled_) spills_.begin();
    spilled_ = true;
    mended_ = true;
    if (!spills_.add(*entries.children[0], map.offsets()[map.rows])) return refuse(KERNEL_DOUBLED);
    end_value(entries);
    return true;
  }

  static bool append_text(const Type& type, Column& column, const uint8_t* from, const uint8_t* to) {
    if (!has_room(type, column)) return false;
    const size_t used = static_cast<size_t>(column.offsets()[column.rows]);
    const size_t length = static_cast<size_t>(to - from);
    if (used + length + PADDING > column.text.capacity && !column.text.grow(used, used + length + PADDING))
      return false;
    std::memcpy(column.text.at + used, from, length);
    column.offsets()[column.rows + 1] = static_cast<int32_t>(used + length);
    end_value(column);
    return true;
  }

  // Passes a value of any type, which is looked at as closely as any other. Bytes over 127 are the caller's.
  bool skip(int levels) {
    switch (next()) {
      case '"': ++at_; return skip_string();
      case 't': return skip_word("true", 4);
      case 'f': return skip_word("false", 5);
      case 'n': return skip_word("null", 4);
      case '{':
      case '[': return levels > 0 ? skip_many(levels) : refuse(KERNEL_TYPE);
      default: return skip_number();
    }
  }

  bool skip_many(int levels) {
    const bool named = *at_++ == '{';
    const uint8_t last = named ? '}' : ']';
    if (next() == last) return ++at_, true;
    for (;;) {
      if (named) {
        if (next() != '"') return refuse(KERNEL_SYNTAX);
        ++at_;
        if (!skip_string()) return false;
        if (next() != ':') return refuse(KERNEL_SYNTAX);
        ++at_;
      }
      if (!skip(levels - 1)) return false;
      bool more = false;
      if (!comma(last, more)) return false;
      if (!more) return true;
    }
  }

  // Behind the opening quote. Of escapes by number the repair knows more.
  bool skip_string() {
    for (;; ++at_) {
      if (*at_ == '"') return ++at_, true;
      if (*at_ < 0x20) return refuse(KERNEL_SYNTAX);
      if (*at_ != '\\') continue;
      ++at_;
      if (*at_ == 'u') return refuse(KERNEL_ENCODING);
      if (*at_ == 0 || std::strchr("\"\\/bfnrt", *at_) == nullptr) return refuse(KERNEL_SYNTAX);
    }
  }

  bool skip_word(const char* word, size_t length) {
    if (std::memcmp(at_, word, length) != 0) return refuse(KERNEL_SYNTAX);
    at_ += length;
    return true;
  }

  // Source: RFC 8259, section 6.
  bool skip_number() {
    at_ += *at_ == '-';
    const uint8_t* whole = at_;
    const auto run = [&] {
      const uint8_t* begin = at_;
      while (is_digit(*at_)) ++at_;
      return at_ != begin;
    };
    if (!run() || (*whole == '0' && at_ - whole > 1)) return refuse(KERNEL_SYNTAX);
    if (*at_ == '.') {
      ++at_;
      if (!run()) return refuse(KERNEL_SYNTAX);
    }
    if (*at_ == 'e' || *at_ == 'E') {
      ++at_;
      at_ += *at_ == '+' || *at_ == '-';
      if (!run()) return refuse(KERNEL_SYNTAX);
    }
    return true;
  }

  // Which member comes next; passes its colon. What followed the one before last time is tried first.
  int key(Type& type, size_t previous) {
    int member = type.after[previous];
    if (!is_key(type, member)) {
      member = NO_MEMBER;
      for (size_t i = 0; i < type.keys.size() && member == NO_MEMBER; ++i) {
        const int candidate = static_cast<int>((previous + i) % type.keys.size());  // the next ones first
        if (is_key(type, candidate)) member = candidate;
      }
      if (member == NO_MEMBER) {
        refuse(*at_ == '"' ? KERNEL_UNKNOWN : KERNEL_SYNTAX);
        return NO_MEMBER;
      }
      type.after[previous] = static_cast<int16_t>(member);
    }
    if (member == type.reserved && !repaired_) {
      refuse(KERNEL_UNKNOWN);
      return NO_MEMBER;
    }
    const Key& key = type.keys[static_cast<size_t>(member)];
    at_ += key.length - 1;
    if (*at_ != ':') {
      if (next() != ':') {
        refuse(KERNEL_SYNTAX);
        return NO_MEMBER;
      }
    }
    ++at_;
    return member;
  }

  // Without its colon, which may have white space before it.
  bool is_key(const Type& type, int member) const {
    const Key& key = type.keys[static_cast<size_t>(member)];
    std::array<uint64_t, 2> words;
    std::memcpy(words.data(), at_, sizeof words);
    if ((((words[0] ^ key.words[0]) & key.masks[0]) | ((words[1] ^ key.words[1]) & key.masks[1])) != 0) return false;
    return key.length - 1 <= sizeof words || std::memcmp(at_, key.token.data(), key.length - 1) == 0;
  }

  // Behind the opening bracket.
  bool list(Type& type, Column& column) {
    if (!has_room(type, column)) return refuse(KERNEL_NO_MEMORY);
    Type& item = type.children[0];
    Column& items = *column.children[0];
    if (next() == ']') {
      ++at_;
    } else {
      for (;;) {
        if (!value(item, items)) return false;
        bool more = false;
        if (!comma(']', more)) return false;
        if (!more) break;
      }
    }
    column.offsets()[column.rows + 1] = static_cast<int32_t>(items.rows);
    end_value(column);
    return true;
  }

  // Behind the opening brace. No map is inside another one: `new_type` sees to that.
  bool map(Type& type, Column& column) {
    if (!has_room(type, column)) return refuse(KERNEL_NO_MEMORY);
    Type& entry = type.children[0];
    Column& entries = *column.children[0];
    Column& keys = *entries.children[0];
    const int64_t first = keys.rows;
    if (next() == '}') {
      ++at_;
    } else {
      seen_.begin();
      for (;;) {
        if (next() != '"') return refuse(KERNEL_SYNTAX);
        ++at_;
        if (!has_room(entry, entries)) return refuse(KERNEL_NO_MEMORY);
        if (!text(entry.children[0], keys)) return false;
        if (!seen_.add(keys, first)) return refuse(KERNEL_DOUBLED);
        if (next() != ':') return refuse(KERNEL_SYNTAX);
        ++at_;
        if (!value(entry.children[1], *entries.children[1])) return false;
        end_value(entries);
        bool more = false;
        if (!comma('}', more)) return false;
        if (!more) break;
      }
    }
    column.offsets()[column.rows + 1] = static_cast<int32_t>(entries.rows);
    end_value(column);
    return true;
  }

  Seen& seen_;
  Seen& spills_;
  const uint8_t* at_;
  bool repaired_;
  bool spilled_ = false;  // the reserved map of this line has entries
  bool mended_ = false;
  int32_t code_ = KERNEL_DONE;
};

// ---------------------------------------------------------------- from the schema, and to an Arrow array

bool kind_of(const char* format, Kind& kind) {
  static constexpr std::pair<const char*, Kind> KINDS[] = {
      {"u", Kind::Text},   {"l", Kind::Integer}, {"g", Kind::Number}, {"b", Kind::Flag},
      {"+s", Kind::Struct}, {"+l", Kind::List},  {"+m", Kind::Map},
  };
  for (const auto& [known, named] : KINDS)
    if (std::strcmp(format, known) == 0) {
      kind = named;
      return true;
    }
  kind = Kind::Unsigned;  // d:<20 digits or more>,0
  if (std::strncmp(format, "d:", 2) != 0 || std::atoi(format + 2) < 20) return false;
  const char* scale = std::strchr(format, ',');
  return scale != nullptr && std::strcmp(scale, ",0") == 0;
}

// Whether JSON spells a name as it is.
bool is_plain(const char* name) {
  for (; *name != 0; ++name)
    if (static_cast<uint8_t>(*name) < 0x20 || *name == '"' || *name == '\\') return false;
  return true;
}

// False: a type that no value can be read into.
bool new_type(const ArrowSchema& schema, bool in_map, Type& type) {
  if (schema.dictionary != nullptr || !kind_of(schema.format, type.kind)) return false;
  if (schema.n_children > static_cast<int64_t>(MOST_MEMBERS)) return false;
  if (type.kind == Kind::Map && in_map) return false;
  type.children.resize(static_cast<size_t>(schema.n_children));
  for (size_t i = 0; i < type.children.size(); ++i)
    if (!new_type(*schema.children[i], in_map || type.kind == Kind::Map, type.children[i])) return false;
  if (type.kind == Kind::Map) {
    const Type& entry = type.children[0];
    return entry.children.size() == 2 && entry.children[0].kind == Kind::Text;
  }
  if (type.kind != Kind::Struct) return true;
  if (type.children.empty()) return false;
  for (int64_t i = 0; i < schema.n_children; ++i) {
    Key key;
    key.token = '"' + std::string(schema.children[i]->name) + "\":";
    key.length = key.token.size();
    if (key.length > PADDING || !is_plain(schema.children[i]->name)) return false;
    const size_t first = std::min(key.length - 1, sizeof key.words);
    std::memcpy(key.words.data(), key.token.data(), first);
    std::memset(key.masks.data(), 0xFF, first);
    type.keys.push_back(std::move(key));
  }
  type.after.resize(type.keys.size() + 1);
  for (size_t i = 0; i < type.after.size(); ++i) type.after[i] = static_cast<int16_t>(i % type.keys.size());
  return true;
}

// The columns of one batch, used again and again. While Arrow has them, `held` counts the arrays it has not let go.
struct Columns {
  explicit Columns(const Type& type) : root(new_column(type)) {}
  std::unique_ptr<Column> root;
  std::vector<std::unique_ptr<struct Exported>> exported;
  std::atomic<int64_t> held{0};
};

// Columns that are not in use: of several that come back one stays, for the next batch. Outlives the builder while
// Arrow still has some.
struct Pool {
  std::mutex mutex;
  std::unique_ptr<Columns> idle;
};

// What an ArrowArray points to.
struct Exported {
  std::array<const void*, 3> buffers{};
  std::vector<ArrowArray*> children;
  ArrowArray array{};  // of a child; the root's belongs to Python
  std::shared_ptr<Pool> pool;
  Columns* columns = nullptr;
};

// The last array that is let go of is never one of `exported`: who takes a child out has a copy of it.
void give_back(Pool& pool, Columns* columns) {
  std::unique_ptr<Columns> back(columns);
  back->exported.clear();
  const std::lock_guard<std::mutex> lock(pool.mutex);
  if (pool.idle == nullptr) pool.idle = std::move(back);
}

void release(ArrowArray* array) {
  auto* exported = static_cast<Exported*>(array->private_data);
  for (int64_t i = 0; i < array->n_children; ++i)
    if (array->children[i]->release != nullptr) array->children[i]->release(array->children[i]);
  array->release = nullptr;
  const std::shared_ptr<Pool> pool = exported->pool;
  Columns* columns = exported->columns;
  if (columns->held.fetch_sub(1) == 1) give_back(*pool, columns);
}

int64_t nulls_of(const Column& column) {
  if (!column.has_nulls) return 0;
  int64_t valid = 0;
  for (int64_t i = 0; i < (column.rows + 7) / 8; ++i) valid += __builtin_popcount(column.validity.at[i]);
  return column.rows - valid;
}

// Everything that can fail is done here, before anything is lent.
void prepare(const Type& type, Column& column, Columns& columns, const std::shared_ptr<Pool>& pool) {
  if (column.room == 0 && !make_room(type, column)) throw std::bad_alloc();
  auto exported = std::make_unique<Exported>();
  exported->pool = pool;
  exported->columns = &columns;
  exported->children.resize(type.children.size());
  columns.exported.push_back(std::move(exported));
  for (size_t i = 0; i < type.children.size(); ++i) prepare(type.children[i], *column.children[i], columns, pool);
}

// In the order of `prepare`.
void describe(const Type& type, Column& column, Columns& columns, size_t& place, ArrowArray& array) {
  Exported& exported = *columns.exported[place++];
  const int64_t nulls = nulls_of(column);
  exported.buffers[0] = nulls == 0 ? nullptr : column.validity.at;
  exported.buffers[1] = column.values.at;
  exported.buffers[2] = column.text.at;
  for (size_t i = 0; i < type.children.size(); ++i) {
    ArrowArray& child = columns.exported[place]->array;
    exported.children[i] = &child;
    describe(type.children[i], *column.children[i], columns, place, child);
  }
  array = ArrowArray{};
  array.length = column.rows;
  array.null_count = nulls;
  array.n_buffers = type.kind == Kind::Struct ? 1 : type.kind == Kind::Text ? 3 : 2;
  array.n_children = static_cast<int64_t>(type.children.size());
  array.buffers = exported.buffers.data();
  array.children = exported.children.data();
  array.release = release;
  array.private_data = &exported;
  columns.held.fetch_add(1);
}

}  // namespace

// ---------------------------------------------------------------- the builder

struct Kernel {
  Type type;
  std::shared_ptr<Pool> pool = std::make_shared<Pool>();
  std::unique_ptr<Columns> columns;
  Seen seen;
  Seen spills;
  std::vector<uint8_t> last;  // lines that nothing stands behind

  Column& root() { return *columns->root; }

  // As late as can be: those of the batch before are mostly back by then. False: there is no memory.
  bool has_columns() try {
    if (columns != nullptr) return true;
    {
      const std::lock_guard<std::mutex> lock(pool->mutex);
      columns = std::move(pool->idle);
    }
    if (columns == nullptr) columns = std::make_unique<Columns>(type);
    columns->exported.clear();
    clear(root());
    return true;
  } catch (const std::bad_alloc&) {
    return false;
  }

  // A line up to its LF, with PADDING behind it. Throws bad_alloc.
  const uint8_t* copied(const uint8_t* from, const uint8_t* lf) {
    last.assign(from, lf + 1);
    last.resize(last.size() + PADDING);
    return last.data();
  }

  // One line; how much of it was `passed`: up to its LF, or to what was refused. Throws bad_alloc.
  int32_t take(const uint8_t* from, bool repaired, KernelResult& result, int64_t& passed) {
    Parser parser(seen, spills, from, repaired);
    const bool taken = parser.line(type, root());
    passed = parser.at() - from;
    if (taken) result.mended += parser.mended();
    return parser.code();
  }
};

extern "C" {

// What this was made from; build.py says so. A library of another source is not used.
EXPORTED const char* kernel_source() { return KERNEL_SOURCE; }

// NULL: the schema has a type that is not known here, or there is no memory. `reserved` is the place of the
// top-level map<utf8, utf8> that takes what is odd about a line; -1: there is none, and odd lines are refused.
// `shows_flags`, one byte for each top-level member: not 0 for a text that shows booleans.
EXPORTED Kernel* kernel_new(const ArrowSchema* schema, int32_t reserved, const uint8_t* shows_flags) try {
  auto kernel = std::make_unique<Kernel>();
  if (std::strcmp(schema->format, "+s") != 0 || !new_type(*schema, false, kernel->type)) return nullptr;
  kernel->type.reserved = reserved;
  for (Type& child : kernel->type.children) child.shows_flags = *shows_flags++ != 0;
  return kernel.release();
} catch (const std::bad_alloc&) {
  return nullptr;
}

EXPORTED void kernel_free(Kernel* kernel) { delete kernel; }

// Appends the lines of `text` from `begin` on, up to the first that is refused. Every line ends in LF.
EXPORTED int32_t kernel_append(Kernel* kernel, const uint8_t* text, int64_t length, int64_t begin, int32_t repaired,
                               KernelResult* result) {
  *result = KernelResult{};
  if (!kernel->has_columns()) {
    result->next = begin;
    return KERNEL_NO_MEMORY;
  }
  Column& root = kernel->root();
  const int64_t before = root.rows;
  int64_t rows = before;
  int64_t room = MOST_TEXT - bytes_of(kernel->type, root);
  const bool all_fit = length - begin <= room;
  int64_t padded = length - static_cast<int64_t>(PADDING) - 1;  // a line that begins up to here has others behind it
  while (padded >= begin && text[padded] != '\n') --padded;
  const auto lf_of = [&] {
    return static_cast<const uint8_t*>(std::memchr(text + begin, '\n', static_cast<size_t>(length - begin)));
  };
  int32_t code = KERNEL_DONE;
  try {
    while (begin < length) {
      const uint8_t* from = text + begin;
      if (begin > padded || !all_fit) {  // otherwise the end shows by itself
        const uint8_t* lf = lf_of();
        if (lf == nullptr) {
          code = KERNEL_SYNTAX;
          result->begin = result->position = begin;
          result->end = begin = length;
          break;
        }
        room -= lf - from + 1;
        if (room < 0) {
          code = KERNEL_FULL;
          break;
        }
        if (begin > padded) from = kernel->copied(from, lf);
      }
      int64_t passed = 0;
      code = kernel->take(from, repaired != 0, *result, passed);
      if (code == KERNEL_NO_MEMORY) break;
      if (code != KERNEL_DONE) {
        result->begin = begin;
        result->end = lf_of() - text;
        result->position = begin + passed;
        begin = result->end + 1;
        break;
      }
      begin += passed + 1;
      rows += 1;
    }
  } catch (const std::bad_alloc&) {
    code = KERNEL_NO_MEMORY;
  }
  if (code != KERNEL_DONE) truncate(kernel->type, root, rows);
  result->rows = rows - before;
  result->next = begin;
  result->bytes = bytes_of(kernel->type, root);
  return code;
}

// Forgets all rows from `rows` on.
EXPORTED void kernel_truncate(Kernel* kernel, int64_t rows) {
  if (kernel->columns != nullptr) truncate(kernel->type, kernel->root(), rows);
}

// Of a top-level column of numbers, behind an append.
EXPORTED void kernel_view(Kernel* kernel, int32_t place, KernelView* view) {
  const Column& column = *kernel->root().children[static_cast<size_t>(place)];
  view->values = column.values.at;
  view->validity = column.has_nulls ? column.validity.at : nullptr;
  view->rows = column.rows;
}

// Everything appended so far as one batch; the builder begins with none. 0, or KERNEL_NO_MEMORY: nothing has changed.
EXPORTED int32_t kernel_finish(Kernel* kernel, ArrowArray* array) try {
  if (!kernel->has_columns()) return KERNEL_NO_MEMORY;
  Columns& columns = *kernel->columns;
  columns.exported.clear();
  prepare(kernel->type, *columns.root, columns, kernel->pool);
  size_t place = 0;
  describe(kernel->type, *columns.root, columns, place, *array);
  kernel->columns.release();  // Arrow's now; `give_back` takes it
  return KERNEL_DONE;
} catch (const std::bad_alloc&) {
  return KERNEL_NO_MEMORY;
}

}  // extern "C"
