// senetzoo::gated_tail and senetzoo::excitation on the CPU: a 1x1 convolution with PyTorch's own
// brgemm, and scale, shortcut and activation applied to each tile of its result while that is in
// the cache. senetzoo/deploy/tail.py defines what they compute.
#include <ATen/Parallel.h>
#include <ATen/cpu/vec/vec.h>
#include <ATen/native/CPUBlas.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/empty_like.h>
#include <torch/library.h>

#ifdef __AVX512BF16__
#include <immintrin.h>
#endif

namespace {

using at::Tensor;
using at::vec::Vectorized;
using Floats = Vectorized<float>;
using at::native::cpublas::brgemm;

constexpr int64_t LANES = Floats::size();
// Rows of a tile. With its columns, the sums of a tile fill a quarter of an L1 cache of 32 KiB.
constexpr int64_t ROWS = 32;
// Channels that are summed at a time.
constexpr int64_t PART = 128;
// Weights with more bytes than this don't fit in an L2 cache together with the maps.
constexpr int64_t SECOND_LEVEL = 1 << 19;

enum Activation : int64_t { IDENTITY, RELU, SIGMOID, SILU, HARDSIGMOID };

// Not at::parallel_for: its first use in a thread would reset the thread's number of threads to the
// process's, because this library has its own copy of the flag for that.
template <typename Work>
void parallel(int64_t tasks, const Work& work) {
  if (tasks > 1 && !at::in_parallel_region() && at::get_num_threads() > 1)
    at::internal::invoke_parallel(0, tasks, 1, work);
  else
    work(0, tasks);
}

// Two vectors of floats, as many numbers as one vector of bf16.
struct Pair {
  Floats low, high;
};
constexpr int64_t PAIR = 2 * LANES;
using Whole = std::integral_constant<int64_t, PAIR>;

inline Pair load(const float* from) {
  return {Floats::loadu(from), Floats::loadu(from + LANES)};
}

inline Pair load(const at::BFloat16* from) {
  auto [low, high] = at::vec::convert_bfloat16_float(Vectorized<at::BFloat16>::loadu(from));
  return {low, high};
}

inline void store(float* to, Pair value) {
  value.low.store(to);
  value.high.store(to + LANES);
}

inline void store(at::BFloat16* to, Pair value) {
#ifdef __AVX512BF16__
  _mm512_storeu_si512(to, (__m512i)_mm512_cvtne2ps_pbh(value.high, value.low));
#else
  at::vec::convert_float_bfloat16(value.low, value.high).store(to);
#endif
}

// For the last channels, if there are fewer than in a pair.
inline Pair load(const float* from, int64_t count) {
  if (count == PAIR) return load(from);
  return {Floats::loadu(from, std::min(count, LANES)),
          Floats::loadu(from + LANES, std::max(count - LANES, int64_t(0)))};
}

inline Pair load(const at::BFloat16* from, int64_t count) {
  if (count == PAIR) return load(from);
  auto [low, high] =
      at::vec::convert_bfloat16_float(Vectorized<at::BFloat16>::loadu(from, int16_t(count)));
  return {low, high};
}

inline void store(float* to, Pair value, int64_t count) {
  if (count == PAIR) return store(to, value);
  value.low.store(to, std::min(count, LANES));
  if (count > LANES) value.high.store(to + LANES, count - LANES);
}

inline void store(at::BFloat16* to, Pair value, int64_t count) {
  if (count == PAIR) return store(to, value);
  at::vec::convert_float_bfloat16(value.low, value.high).store(to, count);
}

// Call `work(channel, count)` for all channels, a pair of vectors at a time.
template <typename Work>
inline void by_pairs(int64_t channels, Work work) {
  int64_t channel = 0;
  for (; channel + PAIR <= channels; channel += PAIR) work(channel, Whole());
  if (channel < channels) work(channel, channels - channel);
}

template <int64_t activation>
inline Floats activated(Floats x) {
  if constexpr (activation == RELU) return at::vec::maximum(x, Floats(0.f));
  if constexpr (activation == SIGMOID) return (Floats(1.f) + x.neg().exp()).reciprocal();
  if constexpr (activation == SILU) return x / (Floats(1.f) + x.neg().exp());
  if constexpr (activation == HARDSIGMOID)
    return at::vec::clamp(x + Floats(3.f), Floats(0.f), Floats(6.f)) * Floats(1.f / 6.f);
  return x;
}

// Rows of one image in a tile: to = act(gate * (sums + bias) + shortcut).
template <int64_t activation, typename T>
void epilogue(int64_t rows, int64_t columns, const float* sums, const T* bias, const T* gate,
              const T* shortcut, T* to, int64_t stride) {
  by_pairs(columns, [&](int64_t column, auto count) {
    Pair scale{Floats(1.f), Floats(1.f)}, shift{Floats(0.f), Floats(0.f)};
    if (bias) shift = load(bias + column, count);
    if (gate) {
      scale = load(gate + column, count);
      shift = {shift.low * scale.low, shift.high * scale.high};
    }
    for (int64_t row = 0; row < rows; row++) {
      Pair sum = load(sums + row * columns + column, count);
      sum = {at::vec::fmadd(sum.low, scale.low, shift.low),
             at::vec::fmadd(sum.high, scale.high, shift.high)};
      if (shortcut) {
        Pair other = load(shortcut + row * stride + column, count);
        sum = {sum.low + other.low, sum.high + other.high};
      }
      store(to + row * stride + column,
            {activated<activation>(sum.low), activated<activation>(sum.high)}, count);
    }
  });
}

template <typename T>
struct Tail {
  const T *x, *weight, *bias, *gate, *shortcut, *input_gate;  // the last four may be null
  T* to;                                                      // may be the shortcut
  int64_t images, pixels, inputs, outputs, columns, activation;

  // The input of a tile, multiplied by the input gate of each row's image.
  void scale(int64_t first, int64_t rows, T* scaled) const {
    for (int64_t row = 0; row < rows; row++) {
      const T* from = x + (first + row) * inputs;
      const T* factor = input_gate + (first + row) / pixels * inputs;
      by_pairs(inputs, [&](int64_t channel, auto count) {
        const Pair value = load(from + channel, count), by = load(factor + channel, count);
        store(scaled + row * inputs + channel, {value.low * by.low, value.high * by.high}, count);
      });
    }
  }

  void tile(int64_t first, int64_t rows, int64_t block, const T* from, float* sums) const {
    const int64_t start = block * columns;
    if (shortcut) {
      for (int64_t row = 0; row < rows; row++)
        for (int64_t byte = 0; byte < columns * int64_t(sizeof(T)); byte += 64)
          __builtin_prefetch(
              (const char*)(shortcut + (first + row) * outputs + start) + byte, 1);
    }
    // In fp32 sums of parts are more accurate than one long sum, as in oneDNN's convolutions.
    const int64_t most = sizeof(T) == 2 ? inputs : PART;
    for (int64_t input = 0; input < inputs; input += most)
      brgemm(rows, columns, std::min(most, inputs - input), inputs, columns, columns, input > 0,
             from + input, weight + start * inputs + input * columns, sums,
             sizeof(T) == 2);
    for (int64_t row = 0; row < rows;) {
      const int64_t image = (first + row) / pixels;
      const int64_t count = std::min(rows - row, (image + 1) * pixels - first - row);
      const int64_t place = (first + row) * outputs + start;
      auto run = [&](auto kind) {
        epilogue<decltype(kind)::value>(
            count, columns, sums + row * columns, bias ? bias + start : nullptr,
            gate ? gate + image * outputs + start : nullptr,
            shortcut ? shortcut + place : nullptr, to + place, outputs);
      };
      switch (activation) {
        case RELU: run(std::integral_constant<int64_t, RELU>()); break;
        case SIGMOID: run(std::integral_constant<int64_t, SIGMOID>()); break;
        case SILU: run(std::integral_constant<int64_t, SILU>()); break;
        case HARDSIGMOID: run(std::integral_constant<int64_t, HARDSIGMOID>()); break;
        default: run(std::integral_constant<int64_t, IDENTITY>());
      }
      row += count;
    }
  }

  void operator()() const {
    const int64_t all = images * pixels, blocks = outputs / columns;
    const int64_t tiles = (all + ROWS - 1) / ROWS;
    // The inner loop goes over what stays in the cache: the weights, or the maps if the weights are
    // too large. With an input gate it goes over the weights, so that each tile is scaled once.
    const bool inner_weights =
        input_gate || outputs * inputs * int64_t(sizeof(T)) <= SECOND_LEVEL;
    parallel(tiles * blocks, [&](int64_t begin, int64_t end) {
      std::vector<float> sums(ROWS * columns);
      std::vector<T> scaled(input_gate ? ROWS * inputs : 0);
      int64_t last = -1;
      for (int64_t task = begin; task < end; task++) {
        const int64_t tile_ = inner_weights ? task / blocks : task % tiles;
        const int64_t block = inner_weights ? task % blocks : task / tiles;
        const int64_t first = tile_ * ROWS, rows = std::min(ROWS, all - first);
        if (input_gate && tile_ != last) scale(first, rows, scaled.data());
        last = tile_;
        tile(first, rows, block, input_gate ? scaled.data() : x + first * inputs, sums.data());
      }
      at::native::cpublas::brgemm_release(sizeof(T) == 2);
    });
  }
};

// Means over the pixels (N, P, K) -> (N, K).
template <typename T>
void means(const T* x, T* to, int64_t images, int64_t pixels, int64_t channels) {
  constexpr int64_t GROUP = 4;
  const int64_t whole = channels / PAIR, rest = channels % PAIR;
  const int64_t groups = (whole + (rest > 0) + GROUP - 1) / GROUP;
  const Floats factor(1.f / float(pixels));
  parallel(images * groups, [&](int64_t begin, int64_t end) {
    for (int64_t task = begin; task < end; task++) {
      const int64_t image = task / groups, first = task % groups * GROUP;
      auto run = [&](auto number, int64_t start, auto width) {
        constexpr int64_t count = decltype(number)::value;
        const T* from = x + image * pixels * channels + start * PAIR;
        Pair sums[count];
        for (auto& sum : sums) sum = {Floats(0.f), Floats(0.f)};
        for (int64_t pixel = 0; pixel < pixels; pixel++)
          for (int64_t part = 0; part < count; part++) {
            Pair value = load(from + pixel * channels + part * PAIR, width);
            sums[part] = {sums[part].low + value.low, sums[part].high + value.high};
          }
        for (int64_t part = 0; part < count; part++)
          store(to + image * channels + (start + part) * PAIR,
                {sums[part].low * factor, sums[part].high * factor}, width);
      };
      switch (std::min(GROUP, whole - first)) {
        case 0: break;
        case 1: run(std::integral_constant<int64_t, 1>(), first, Whole()); break;
        case 2: run(std::integral_constant<int64_t, 2>(), first, Whole()); break;
        case 3: run(std::integral_constant<int64_t, 3>(), first, Whole()); break;
        default: run(std::integral_constant<int64_t, 4>(), first, Whole());
      }
      if (rest > 0 && first + GROUP > whole)
        run(std::integral_constant<int64_t, 1>(), whole, rest);
    }
  });
}

using Maybe = std::optional<Tensor>;
constexpr auto LAST = at::MemoryFormat::ChannelsLast;

template <typename T>
const T* pointer(const Maybe& tensor) {
  return tensor ? tensor->const_data_ptr<T>() : nullptr;
}

int64_t channels(const Tensor& weight) {
  return weight.size(0) * weight.size(2) / (weight.scalar_type() == at::kBFloat16 ? 2 : 1);
}

// Rejects arguments that would read beyond the end of a tensor.
void check(const Tensor& x, const Tensor& weight, const Maybe& bias) {
  const bool half = x.scalar_type() == at::kBFloat16;
  TORCH_CHECK_VALUE(half || x.scalar_type() == at::kFloat, "A tail takes float32 and bfloat16, not ",
                    x.scalar_type());
  TORCH_CHECK_VALUE(x.dim() == 4 && x.numel() > 0, "A tail got maps of shape ", x.sizes(),
                    ": it takes (images, channels, height, width), at least one image");
  TORCH_CHECK_VALUE(weight.scalar_type() == x.scalar_type() && weight.dim() == 3 &&
                        weight.is_contiguous() && weight.size(1) * (half ? 2 : 1) == x.size(1) &&
                        weight.size(2) % (half ? 2 : 1) == 0,
                    "A tail got weights of shape ", weight.sizes(), " for ", x.size(1),
                    " channels: pack them with senetzoo.deploy.tail.pack");
  TORCH_CHECK_VALUE(!bias || (bias->scalar_type() == x.scalar_type() &&
                              bias->numel() == channels(weight) && bias->is_contiguous()),
                    "A tail's bias has another shape or type than its weights");
}

template <typename T>
void multiply(const Tensor& x, const Tensor& weight, const Maybe& bias, const Maybe& gate,
              const Maybe& shortcut, const Maybe& input_gate, Tensor& to, int64_t activation) {
  const int64_t outputs = channels(weight);
  Tail<T>{x.const_data_ptr<T>(), weight.const_data_ptr<T>(), pointer<T>(bias), pointer<T>(gate),
          pointer<T>(shortcut), pointer<T>(input_gate), to.mutable_data_ptr<T>(), x.size(0),
          x.size(2) * x.size(3), x.size(1), outputs, outputs / weight.size(0), activation}();
}

// A contiguous gate; rejects other shapes and types.
Maybe checked(const Maybe& gate, const Tensor& maps) {
  if (!gate) return gate;
  TORCH_CHECK_VALUE(gate->scalar_type() == maps.scalar_type() && gate->dim() == 2 &&
                        gate->size(0) == maps.size(0) && gate->size(1) == maps.size(1),
                    "A tail's gate is (images, channels), of the type of its maps");
  return gate->contiguous();
}

void run(const Tensor& x, const Tensor& weight, const Maybe& bias, const Maybe& gate,
         const Maybe& shortcut, const Maybe& input_gate, Tensor& to, int64_t activation) {
  const auto type = x.scalar_type();
  TORCH_CHECK_VALUE(!shortcut || (shortcut->scalar_type() == type &&
                                  shortcut->sizes() == at::IntArrayRef({x.size(0), channels(weight),
                                                                       x.size(2), x.size(3)})),
                    "A tail's shortcut has another shape or type than its sum");
  auto known = type == at::kBFloat16 ? multiply<at::BFloat16> : multiply<float>;
  known(x.contiguous(LAST), weight, bias, checked(gate, to), shortcut, checked(input_gate, x), to,
        activation);
}

Tensor gated_tail(const Tensor& x, const Tensor& weight, const Maybe& bias, const Maybe& gate,
                  const Maybe& shortcut, int64_t activation, const Maybe& input_gate) {
  check(x, weight, bias);
  Tensor to = at::empty({x.size(0), channels(weight), x.size(2), x.size(3)},
                        x.options().memory_format(LAST));
  Maybe held;
  if (shortcut) held = shortcut->contiguous(LAST);
  run(x, weight, bias, gate, held, input_gate, to, activation);
  return to;
}

void gated_tail_(const Tensor& x, const Tensor& weight, const Maybe& bias, const Maybe& gate,
                 Tensor& shortcut, int64_t activation, const Maybe& input_gate) {
  check(x, weight, bias);
  if (shortcut.is_contiguous(LAST)) {
    run(x, weight, bias, gate, shortcut, input_gate, shortcut, activation);
  } else {
    shortcut.copy_(gated_tail(x, weight, bias, gate, shortcut, activation, input_gate));
  }
}

Tensor excitation(const Tensor& x, const Tensor& weight1, const Maybe& bias1,
                  const Tensor& weight2, const Maybe& bias2, int64_t hidden,
                  int64_t activation) {
  check(x, weight1, bias1);
  const Tensor last = x.contiguous(LAST);
  Tensor mean = at::empty({x.size(0), x.size(1), 1, 1}, x.options().memory_format(LAST));
  if (x.scalar_type() == at::kBFloat16) {
    means(last.const_data_ptr<at::BFloat16>(), mean.mutable_data_ptr<at::BFloat16>(), x.size(0),
          x.size(2) * x.size(3), x.size(1));
  } else {
    means(last.const_data_ptr<float>(), mean.mutable_data_ptr<float>(), x.size(0),
          x.size(2) * x.size(3), x.size(1));
  }
  const Tensor units = gated_tail(mean, weight1, bias1, {}, {}, hidden, {});
  return gated_tail(units, weight2, bias2, {}, {}, activation, {})
      .view({x.size(0), channels(weight2)});
}

TORCH_LIBRARY_IMPL(senetzoo, CPU, m) {
  m.impl("gated_tail", gated_tail);
  m.impl("gated_tail_", gated_tail_);
  m.impl("excitation", excitation);
}

}  // namespace
