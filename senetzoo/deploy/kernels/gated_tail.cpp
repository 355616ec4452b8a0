// senetzoo::gated_tail and senetzoo::excitation on the CPU: a 1x1 convolution by PyTorch's own
// brgemm, with scale, shortcut and activation on each tile of its result while that is in the
// cache. What they compute is defined in senetzoo/deploy/tail.py.
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
// Of the rows of a tile; with its columns the sums of a tile fill half of a first-level cache.
constexpr int64_t ROWS = 32;
// Of the channels that are summed in one go.
constexpr int64_t PART = 128;
// Weights of more bytes stay in no second-level cache beside the maps.
constexpr int64_t SECOND_LEVEL = 1 << 19;

enum Activation : int64_t { IDENTITY, RELU, SIGMOID };

// Two vectors at a time: as many bf16 as fill one.
struct Pair {
  Floats low, high;
};

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

template <int64_t activation>
inline Floats activated(Floats x) {
  if constexpr (activation == RELU) return at::vec::maximum(x, Floats(0.f));
  if constexpr (activation == SIGMOID) return (Floats(1.f) + x.neg().exp()).reciprocal();
  return x;
}

// Rows of one image in a tile: to = act(gate * (sums + bias) + shortcut).
template <int64_t activation, typename T>
void epilogue(int64_t rows, int64_t columns, const float* sums, const T* bias, const T* gate,
              const T* shortcut, T* to, int64_t stride) {
  for (int64_t column = 0; column < columns; column += 2 * LANES) {
    Pair scale{Floats(1.f), Floats(1.f)}, shift{Floats(0.f), Floats(0.f)};
    if (bias) shift = load(bias + column);
    if (gate) {
      scale = load(gate + column);
      shift = {shift.low * scale.low, shift.high * scale.high};
    }
    for (int64_t row = 0; row < rows; row++) {
      Pair sum = load(sums + row * columns + column);
      sum = {at::vec::fmadd(sum.low, scale.low, shift.low),
             at::vec::fmadd(sum.high, scale.high, shift.high)};
      if (shortcut) {
        Pair other = load(shortcut + row * stride + column);
        sum = {sum.low + other.low, sum.high + other.high};
      }
      store(to + row * stride + column,
            {activated<activation>(sum.low), activated<activation>(sum.high)});
    }
  }
}

template <typename T>
struct Tail {
  const T *x, *weight, *bias, *gate, *shortcut;  // the last three may be null
  T* to;                                         // may be the shortcut
  int64_t images, pixels, inputs, outputs, columns, activation;

  void tile(int64_t first, int64_t rows, int64_t block, float* sums) const {
    const int64_t start = block * columns;
    if (shortcut) {
      for (int64_t row = 0; row < rows; row++)
        for (int64_t byte = 0; byte < columns * int64_t(sizeof(T)); byte += 64)
          __builtin_prefetch(
              (const char*)(shortcut + (first + row) * outputs + start) + byte, 1);
    }
    // In fp32 the sums of parts are more exact than one long sum, as in oneDNN's convolutions.
    const int64_t most = sizeof(T) == 2 ? inputs : PART;
    for (int64_t input = 0; input < inputs; input += most)
      brgemm(rows, columns, std::min(most, inputs - input), inputs, columns, columns, input > 0,
             x + first * inputs + input, weight + start * inputs + input * columns, sums,
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
      if (activation == RELU) run(std::integral_constant<int64_t, RELU>());
      else if (activation == SIGMOID) run(std::integral_constant<int64_t, SIGMOID>());
      else run(std::integral_constant<int64_t, IDENTITY>());
      row += count;
    }
  }

  void operator()() const {
    const int64_t all = images * pixels, blocks = outputs / columns;
    const int64_t tiles = (all + ROWS - 1) / ROWS;
    // What is walked through inside stays in the cache: the weights, or where these are too many
    // the maps.
    const bool inner_weights = outputs * inputs * int64_t(sizeof(T)) <= SECOND_LEVEL;
    at::parallel_for(0, tiles * blocks, 1, [&](int64_t begin, int64_t end) {
      std::vector<float> sums(ROWS * columns);
      for (int64_t task = begin; task < end; task++) {
        const int64_t tile_ = inner_weights ? task / blocks : task % tiles;
        const int64_t block = inner_weights ? task % blocks : task / tiles;
        const int64_t first = tile_ * ROWS;
        tile(first, std::min(ROWS, all - first), block, sums.data());
      }
      at::native::cpublas::brgemm_release(sizeof(T) == 2);
    });
  }
};

// Means over the pixels (N, P, K) -> (N, K).
template <typename T>
void means(const T* x, T* to, int64_t images, int64_t pixels, int64_t channels) {
  constexpr int64_t GROUP = 4, WIDTH = 2 * LANES;
  const int64_t parts = channels / WIDTH, groups = (parts + GROUP - 1) / GROUP;
  const Floats factor(1.f / float(pixels));
  at::parallel_for(0, images * groups, 1, [&](int64_t begin, int64_t end) {
    for (int64_t task = begin; task < end; task++) {
      const int64_t image = task / groups, first = task % groups * GROUP;
      const T* from = x + image * pixels * channels + first * WIDTH;
      T* out = to + image * channels + first * WIDTH;
      auto run = [&](auto number) {
        constexpr int64_t count = decltype(number)::value;
        Pair sums[count];
        for (auto& sum : sums) sum = {Floats(0.f), Floats(0.f)};
        for (int64_t pixel = 0; pixel < pixels; pixel++)
          for (int64_t part = 0; part < count; part++) {
            Pair value = load(from + pixel * channels + part * WIDTH);
            sums[part] = {sums[part].low + value.low, sums[part].high + value.high};
          }
        for (int64_t part = 0; part < count; part++)
          store(out + part * WIDTH, {sums[part].low * factor, sums[part].high * factor});
      };
      switch (std::min(GROUP, parts - first)) {
        case 1: run(std::integral_constant<int64_t, 1>()); break;
        case 2: run(std::integral_constant<int64_t, 2>()); break;
        case 3: run(std::integral_constant<int64_t, 3>()); break;
        default: run(std::integral_constant<int64_t, 4>());
      }
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

// What would read beyond the end of a tensor is refused.
void check(const Tensor& x, const Tensor& weight, const Maybe& bias) {
  const bool half = x.scalar_type() == at::kBFloat16;
  TORCH_CHECK_VALUE(half || x.scalar_type() == at::kFloat, "A tail takes float32 and bfloat16, not ",
                    x.scalar_type());
  TORCH_CHECK_VALUE(x.dim() == 4 && x.numel() > 0, "A tail got maps of shape ", x.sizes(),
                    ": it takes (images, channels, height, width), at least one image");
  TORCH_CHECK_VALUE(weight.scalar_type() == x.scalar_type() && weight.dim() == 3 &&
                        weight.is_contiguous() && weight.size(1) * (half ? 2 : 1) == x.size(1) &&
                        weight.size(2) % ((half ? 4 : 2) * LANES) == 0,
                    "A tail got weights of shape ", weight.sizes(), " for ", x.size(1),
                    " channels: they are packed by senetzoo.deploy.tail.pack");
  TORCH_CHECK_VALUE(!bias || (bias->scalar_type() == x.scalar_type() &&
                              bias->numel() == channels(weight) && bias->is_contiguous()),
                    "A tail's bias has another shape or type than its weights");
}

template <typename T>
void multiply(const Tensor& x, const Tensor& weight, const Maybe& bias, const Maybe& gate,
              const Maybe& shortcut, Tensor& to, int64_t pixels, int64_t activation) {
  const int64_t outputs = channels(weight);
  Tail<T>{x.const_data_ptr<T>(), weight.const_data_ptr<T>(), pointer<T>(bias), pointer<T>(gate),
          pointer<T>(shortcut), to.mutable_data_ptr<T>(), x.size(0), pixels, x.size(1),
          outputs, outputs / weight.size(0), activation}();
}

void run(const Tensor& x, const Tensor& weight, const Maybe& bias, const Maybe& gate,
         const Maybe& shortcut, Tensor& to, int64_t activation) {
  const auto type = x.scalar_type();
  TORCH_CHECK_VALUE(!gate || (gate->scalar_type() == type && gate->dim() == 2 &&
                              gate->size(0) == x.size(0) && gate->size(1) == to.size(1)),
                    "A tail's gate is (images, channels), of the type of its maps");
  TORCH_CHECK_VALUE(!shortcut || (shortcut->scalar_type() == type &&
                                  shortcut->sizes() == at::IntArrayRef({x.size(0), channels(weight),
                                                                       x.size(2), x.size(3)})),
                    "A tail's shortcut has another shape or type than its sum");
  auto known = type == at::kBFloat16 ? multiply<at::BFloat16> : multiply<float>;
  Maybe held;
  if (gate) held = gate->contiguous();
  known(x.contiguous(LAST), weight, bias, held, shortcut, to, x.size(2) * x.size(3), activation);
}

Tensor gated_tail(const Tensor& x, const Tensor& weight, const Maybe& bias, const Maybe& gate,
                  const Maybe& shortcut, int64_t activation) {
  check(x, weight, bias);
  Tensor to = at::empty({x.size(0), channels(weight), x.size(2), x.size(3)},
                        x.options().memory_format(LAST));
  Maybe held;
  if (shortcut) held = shortcut->contiguous(LAST);
  run(x, weight, bias, gate, held, to, activation);
  return to;
}

void gated_tail_(const Tensor& x, const Tensor& weight, const Maybe& bias, const Maybe& gate,
                 Tensor& shortcut, int64_t activation) {
  check(x, weight, bias);
  if (shortcut.is_contiguous(LAST)) {
    run(x, weight, bias, gate, shortcut, shortcut, activation);
  } else {
    shortcut.copy_(gated_tail(x, weight, bias, gate, shortcut, activation));
  }
}

Tensor excitation(const Tensor& x, const Tensor& weight1, const Maybe& bias1,
                  const Tensor& weight2, const Maybe& bias2) {
  check(x, weight1, bias1);
  TORCH_CHECK_VALUE(x.size(1) % (2 * LANES) == 0, "An excitation got ", x.size(1), " channels");
  const Tensor last = x.contiguous(LAST);
  Tensor mean = at::empty({x.size(0), x.size(1), 1, 1}, x.options().memory_format(LAST));
  if (x.scalar_type() == at::kBFloat16) {
    means(last.const_data_ptr<at::BFloat16>(), mean.mutable_data_ptr<at::BFloat16>(), x.size(0),
          x.size(2) * x.size(3), x.size(1));
  } else {
    means(last.const_data_ptr<float>(), mean.mutable_data_ptr<float>(), x.size(0),
          x.size(2) * x.size(3), x.size(1));
  }
  const Tensor hidden = gated_tail(mean, weight1, bias1, {}, {}, RELU);
  return gated_tail(hidden, weight2, bias2, {}, {}, SIGMOID).view({x.size(0), channels(weight2)});
}

TORCH_LIBRARY_IMPL(senetzoo, CPU, m) {
  m.impl("gated_tail", gated_tail);
  m.impl("gated_tail_", gated_tail_);
  m.impl("excitation", excitation);
}

}  // namespace
