// Products of a few rows of states with a matrix of weights, as a text being written needs them: y = x w^T + bias.
//
// Such a product reads every weight once and computes little with it, so its time is that of reading memory. Each
// thread takes neighbouring rows of the weights, four at a time, and turns them into numbers it can multiply in its
// registers; nothing but y is written. With AVX512_BF16 two products a lane are added at once, and 8-bit weights
// meet states rounded to bfloat16. Everywhere else plain vectors of the compiler compute in float32.

#include <cstdint>
#include <cstring>
#include <type_traits>
#include <vector>

#if defined(__AVX512BF16__) && defined(__AVX512BW__) && defined(__AVX512VL__)
#include <immintrin.h>
#define PAIRS 1
#endif

namespace {

constexpr int ROWS = 4, STATES = 5;  // of a tile: their sums, 20 vectors, stay in registers

typedef float Floats __attribute__((vector_size(64)));
typedef uint32_t Words __attribute__((vector_size(64)));
typedef uint16_t Halves __attribute__((vector_size(32)));
typedef int8_t Bytes __attribute__((vector_size(16)));

struct Brain {  // bfloat16: the upper half of a float32
  uint16_t bits;
};

inline float number(float value) { return value; }
inline float number(int8_t value) { return value; }
inline float number(Brain value) {
  uint32_t bits = uint32_t(value.bits) << 16;
  float made;
  std::memcpy(&made, &bits, 4);
  return made;
}

inline void keep(float value, float& place) { place = value; }
inline void keep(float value, Brain& place) {  // to the nearest, ties to even
  uint32_t bits;
  std::memcpy(&bits, &value, 4);
  place.bits = value != value ? 0x7fc0 : uint16_t((bits + 0x7fff + ((bits >> 16) & 1)) >> 16);
}

inline float total(Floats sums) {
  typedef float Eight __attribute__((vector_size(32)));
  typedef float Four __attribute__((vector_size(16)));
  Eight eights[2];
  std::memcpy(eights, &sums, 64);
  eights[0] += eights[1];
  Four fours[2];
  std::memcpy(fours, eights, 32);
  fours[0] += fours[1];
  return (fours[0][0] + fours[0][2]) + (fours[0][1] + fours[0][3]);
}

template <class Vector>
inline Vector read(const void* from) {
  Vector made;
  std::memcpy(&made, from, sizeof(Vector));
  return made;
}

inline Floats widened(const float* from) { return read<Floats>(from); }
inline Floats widened(const int8_t* from) { return __builtin_convertvector(read<Bytes>(from), Floats); }
inline Floats widened(const Brain* from) {
  Words bits = __builtin_convertvector(read<Halves>(from), Words) << 16;
  Floats made;
  std::memcpy(&made, &bits, 64);
  return made;
}

// How weights of type W meet states: 16 at a time in float32.
template <class W>
struct Plain {
  typedef W Weight;
  typedef float State;
  typedef Floats Vector;
  static constexpr long step = 16;
  static Vector weights(const W* from) { return widened(from); }
  static Vector states(const float* from) { return widened(from); }
  static void add(Floats& sum, Vector w, Vector x) { sum += w * x; }
};

#ifdef PAIRS
inline __m512bh paired(const Brain* from) { return (__m512bh)_mm512_loadu_si512(from); }
inline __m512bh paired(const int8_t* from) {
  __m256i both = _mm256_loadu_si256((const __m256i*)from);
  __m512 low = _mm512_cvtepi32_ps(_mm512_cvtepi8_epi32(_mm256_castsi256_si128(both)));
  __m512 high = _mm512_cvtepi32_ps(_mm512_cvtepi8_epi32(_mm256_extracti128_si256(both, 1)));
  return _mm512_cvtne2ps_pbh(high, low);
}

// 32 at a time in bfloat16, added up in float32.
template <class W>
struct Paired {
  typedef W Weight;
  typedef Brain State;
  typedef __m512bh Vector;
  static constexpr long step = 32;
  static Vector weights(const W* from) { return paired(from); }
  static Vector states(const Brain* from) { return paired(from); }
  static void add(Floats& sum, Vector w, Vector x) { sum = (Floats)_mm512_dpbf16_ps((__m512)sum, w, x); }
};
#endif

// What one tile needs to know: k numbers a row, n outputs, what follows a sum.
template <class Kind, class T>
struct Job {
  const typename Kind::Weight* w;
  const typename Kind::State* x;
  const float* scale;
  const T* bias;
  T* y;
  long n, k;
};

// R rows of weights with M rows of states.
template <class Kind, class T, int R, int M>
inline void tile(const Job<Kind, T>& job, long first_weight, long first_state) {
  const auto* w = job.w + first_weight * job.k;
  const auto* x = job.x + first_state * job.k;
  Floats sums[R][M] = {};
  long i = 0;
  for (; i + Kind::step <= job.k; i += Kind::step) {
    typename Kind::Vector state[M];
    for (int m = 0; m < M; ++m) state[m] = Kind::states(x + m * job.k + i);
    for (int r = 0; r < R; ++r) {
      __builtin_prefetch(w + (r + R) * job.k + i);
      typename Kind::Vector weight = Kind::weights(w + r * job.k + i);
      for (int m = 0; m < M; ++m) Kind::add(sums[r][m], weight, state[m]);
    }
  }
  for (int r = 0; r < R; ++r)
    for (int m = 0; m < M; ++m) {
      float sum = total(sums[r][m]);
      for (long j = i; j < job.k; ++j) sum += number(w[r * job.k + j]) * number(x[m * job.k + j]);
      if (job.scale) sum *= job.scale[first_weight + r];
      if (job.bias) sum += number(job.bias[first_weight + r]);
      keep(sum, job.y[(first_state + m) * job.n + first_weight + r]);
    }
}

// M rows of states as often as they go, and what is left of them.
template <class Kind, class T, int R, int M>
inline void strip(const Job<Kind, T>& job, long first_weight, long first_state, long m) {
  for (; first_state + M <= m; first_state += M) tile<Kind, T, R, M>(job, first_weight, first_state);
  if constexpr (M > 1)
    if (first_state < m) strip<Kind, T, R, M - 1>(job, first_weight, first_state, m);
}

// The states in the type the kind wants: as they are, or rounded into a buffer that stays.
template <class To, class From>
const To* stated(const From* x, long count) {
  if constexpr (std::is_same<To, From>::value) return x;
  else {
    static thread_local std::vector<To> buffer;
    if (long(buffer.size()) < count) buffer.resize(count);
    for (long i = 0; i < count; ++i) keep(number(x[i]), buffer[i]);
    return buffer.data();
  }
}

template <class Kind, class T>
void multiply(const void* x, const void* w, const float* scale, const void* bias, void* y, long m, long n, long k,
              int threads) {
  typedef typename Kind::State State;
  const State* ready = stated<State>((const T*)x, m * k);
  const Job<Kind, T> job = {(const typename Kind::Weight*)w, ready, scale, (const T*)bias, (T*)y, n, k};
  const long strips = n / ROWS;
#pragma omp parallel for schedule(static) num_threads(threads)
  for (long i = 0; i < strips; ++i) strip<Kind, T, ROWS, STATES>(job, ROWS * i, 0, m);
  for (long i = ROWS * strips; i < n; ++i) strip<Kind, T, 1, STATES>(job, i, 0, m);
}

}  // namespace

// x (m, k) states and y (m, n) of one type, w (n, k), scale (n) or null, bias (n) of the states' type or null.
// kind: "ff" float32 states and weights, "bb" bfloat16 ones, "f8" and "b8" such states and 8-bit weights.
// Returns 0, or 1 for a kind that is not known.
extern "C" int bothways_product(int states, int weights, const void* x, const void* w, const float* scale,
                                const void* bias, void* y, long m, long n, long k, int threads) {
  if (states == 'f' && weights == 'f') multiply<Plain<float>, float>(x, w, scale, bias, y, m, n, k, threads);
#ifdef PAIRS
  else if (states == 'b' && weights == 'b') multiply<Paired<Brain>, Brain>(x, w, scale, bias, y, m, n, k, threads);
  else if (states == 'f' && weights == '8') multiply<Paired<int8_t>, float>(x, w, scale, bias, y, m, n, k, threads);
  else if (states == 'b' && weights == '8') multiply<Paired<int8_t>, Brain>(x, w, scale, bias, y, m, n, k, threads);
#else
  else if (states == 'b' && weights == 'b') multiply<Plain<Brain>, Brain>(x, w, scale, bias, y, m, n, k, threads);
  else if (states == 'f' && weights == '8') multiply<Plain<int8_t>, float>(x, w, scale, bias, y, m, n, k, threads);
  else if (states == 'b' && weights == '8') multiply<Plain<int8_t>, Brain>(x, w, scale, bias, y, m, n, k, threads);
#endif
  else return 1;
  return 0;
}
