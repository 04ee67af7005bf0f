"""What BatchNorm with the statistics of the batch multiplies with and adds, in one pass over memory."""

from __future__ import annotations

import ctypes

import torch
from torch import Tensor

from gfb_brevitas.prepared.native_code import native_function

_SOURCE = """
#include <cmath>
#include <vector>
static const int LANES = 16, CHAINS = 4;

// Sums of distances from a center, and of their squares, of one sample.
static void last(const float* x, const float* center, long inner, long channels, float* sums,
                 float* squares) {
  long c = 0;
  for (; c + LANES <= channels; c += LANES) {
    float s[CHAINS][LANES] = {}, q[CHAINS][LANES] = {};
    const float* m = center + c;
    for (long i = 0; i < inner; i += CHAINS)
      for (int k = 0; k < CHAINS && i + k < inner; k++)
        for (int l = 0; l < LANES; l++) {
          const float d = x[(i + k) * channels + c + l] - m[l];
          s[k][l] += d;
          q[k][l] += d * d;
        }
    for (int l = 0; l < LANES; l++) {
      sums[c + l] = (s[0][l] + s[1][l]) + (s[2][l] + s[3][l]);
      squares[c + l] = (q[0][l] + q[1][l]) + (q[2][l] + q[3][l]);
    }
  }
  for (; c < channels; c++) {
    float s = 0, q = 0;
    for (long i = 0; i < inner; i++) {
      const float d = x[i * channels + c] - center[c];
      s += d;
      q += d * d;
    }
    sums[c] = s;
    squares[c] = q;
  }
}

static void first(const float* x, const float* center, long inner, long channels, float* sums,
                  float* squares) {
  for (long c = 0; c < channels; c++, x += inner) {
    float s[LANES * 2] = {}, q[LANES * 2] = {};
    const float m = center[c];
    long i = 0;
    for (; i + LANES * 2 <= inner; i += LANES * 2)
      for (int l = 0; l < LANES * 2; l++) {
        const float d = x[i + l] - m;
        s[l] += d;
        q[l] += d * d;
      }
    for (; i < inner; i++) {
      const float d = x[i] - m;
      s[0] += d;
      q[0] += d * d;
    }
    for (int l = 1; l < LANES * 2; l++) {
      s[0] += s[l];
      q[0] += q[l];
    }
    sums[c] = s[0];
    squares[c] = q[0];
  }
}

extern "C" void statistics(const float* x, long samples, long inner, long channels, int channels_last,
                           const float* weight, const float* bias, double epsilon, float* factor,
                           float* offset, int threads) {
  const auto sums_of = channels_last ? last : first;
  std::vector<float> center(channels), sums(samples * channels), squares(samples * channels);
  sums_of(x, center.data(), inner, channels, sums.data(), squares.data());
  for (long c = 0; c < channels; c++) center[c] = sums[c] / inner;
#pragma omp parallel for num_threads(threads) if (threads > 1)
  for (long n = 0; n < samples; n++)
    sums_of(x + n * inner * channels, center.data(), inner, channels, &sums[n * channels],
            &squares[n * channels]);
  for (long c = 0; c < channels; c++) {
    double sum = 0, square = 0;
    for (long n = 0; n < samples; n++) {
      sum += sums[n * channels + c];
      square += squares[n * channels + c];
    }
    const double count = double(samples) * inner, shift = sum / count;
    double variance = square / count - shift * shift;
    if (variance < 0) variance = 0;
    float f = (float)(1 / std::sqrt(variance + epsilon));
    if (weight) f *= weight[c];
    const float o = -(center[c] + (float)shift) * f;
    factor[c] = f;
    offset[c] = bias ? o + bias[c] : o;
  }
}
"""


def batch_factor_and_offset(
    x: Tensor, weight: Tensor | None, bias: Tensor | None, epsilon: float
) -> tuple[Tensor, Tensor]:
    """What BatchNorm with the statistics of ``x``, shape ``(N, C, ...)``, multiplies with and adds.

    Sums are taken per sample first and about the mean of the first sample: sums of so many float32 values
    cancel badly.

    Returns:
        Two tensors of shape ``(1, C, 1, ...)``.
    """
    parameters = [p for p in (weight, bias) if p is not None]
    is_plain = all(t.dtype == torch.float32 and t.device.type == "cpu" for t in (x, *parameters))
    statistics = native_function(_SOURCE, "statistics") if is_plain and x.numel() else None
    if statistics is None:
        return _one_by_one(x, weight, bias, epsilon)
    channels_last = x.movedim(1, -1).is_contiguous()
    x = x if channels_last else x.contiguous()
    shape = (1, x.shape[1], *(1,) * (x.dim() - 2))
    factor, offset = torch.empty(shape), torch.empty(shape)
    pointers = [None if p is None else p.contiguous() for p in (weight, bias)]
    sizes = (x.shape[0], x.numel() // (x.shape[0] * x.shape[1]), x.shape[1])
    statistics(
        _pointer(x),
        *(ctypes.c_long(size) for size in sizes),
        ctypes.c_int(channels_last),
        *(_pointer(p) for p in pointers),
        ctypes.c_double(epsilon),
        _pointer(factor),
        _pointer(offset),
        ctypes.c_int(torch.get_num_threads()),
    )
    return factor, offset


def _pointer(x: Tensor | None) -> ctypes.c_void_p:
    return ctypes.c_void_p(None if x is None else x.data_ptr())


def _one_by_one(
    x: Tensor, weight: Tensor | None, bias: Tensor | None, epsilon: float
) -> tuple[Tensor, Tensor]:
    inner = list(range(2, x.dim()))
    center = x[:1].mean([0, *inner], keepdim=True)
    distance = x - center
    sums = distance.sum(inner, keepdim=True) if inner else distance
    squares = distance.square().sum(inner, keepdim=True) if inner else distance.square()
    count = x.numel() // x.shape[1]
    shift = sums.double().sum(0, keepdim=True) / count
    variance = squares.double().sum(0, keepdim=True) / count - shift.square()
    factor = (variance.clamp_min(0) + epsilon).rsqrt().to(x.dtype)
    if weight is not None:
        factor = factor * weight.reshape(center.shape)
    offset = -(center + shift.to(x.dtype)) * factor
    return factor, offset if bias is None else offset + bias.reshape(center.shape)
