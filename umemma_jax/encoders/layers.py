"""Layers that encoders share."""

import functools
from collections.abc import Callable

import flax.linen as nn
import jax
import jax.numpy as jnp


class BatchNorm(nn.Module):
    """Batch normalisation whose statistics count only the rows that `mask` keeps.

    Statistics are float32 sums divided once by their count, so that under `jax.pmap` (sums and count are psum'd over
    `axis_name`) and under `jax.jit` on a sharded batch they are those of the global batch. The variance is that
    of deviations from the mean: a difference of squares cancels where the mean is large. As in PyTorch the running
    variance is the unbiased one, and the default momentum (0.1 there, as the weight of the new value) and epsilon are
    PyTorch's. Where no row counts, the running statistics normalise and stay as they are.

    Source: Ioffe & Szegedy, 2015, arXiv 1502.03167, algorithm 1.

    Attributes:
      features: C.
      momentum: weight of the old running statistics.
      epsilon: added to the variance.
      axis_name: axis of `jax.pmap` over which the batch is spread, or None.
    """

    features: int
    momentum: float = 0.9
    epsilon: float = 1e-5
    axis_name: str | None = None

    def setup(self) -> None:
        """Makes parameters and running statistics, [C] each."""
        shape = (self.features,)
        self.scale = self.param("scale", nn.initializers.ones, shape)
        self.bias = self.param("bias", nn.initializers.zeros, shape)
        self.mean = self.variable("batch_stats", "mean", jnp.zeros, shape)
        self.var = self.variable("batch_stats", "var", jnp.ones, shape)

    def __call__(self, x: jax.Array, mask: jax.Array | None = None, train: bool = False) -> jax.Array:
        """Normalises x [B, ..., C], keeping shape and dtype; mask is bool [B]."""
        axes = tuple(range(x.ndim - 1))
        count = count_rows(x, mask) * (x[0].size / self.features)

        def squares(mean: jax.Array) -> jax.Array:
            deviations = keep_rows(x.astype(jnp.float32) - jnp.expand_dims(mean, axes), mask)
            return jnp.square(deviations).sum(axes)

        sums = keep_rows(x, mask).astype(jnp.float32).sum(axes)
        mean, gain = self.mean_and_gain(count, sums, squares, train)
        mean, gain, bias = (jnp.expand_dims(v, axes) for v in (mean, gain, self.bias))
        return ((x - mean) * gain + bias).astype(x.dtype)

    def mean_and_gain(
        self, count: jax.Array, sums: jax.Array, squares: Callable[[jax.Array], jax.Array], train: bool
    ) -> tuple[jax.Array, jax.Array]:
        """Mean and gain, [C] each: the output is `(x - mean) * gain + bias`.

        In training they come from the values themselves, and the running statistics move; else from the running
        statistics.

        Args:
          count: of the values of a channel.
          sums: of them, [C].
          squares: function of a mean [C]: sums of the squared deviations from it, [C].
          train: whether the batch's statistics normalise it.
        """
        mean, var = self.mean.value, self.var.value
        if train:
            if self.axis_name is not None:
                count, sums = jax.lax.psum((count, sums), self.axis_name)
            divisor = jnp.maximum(count, 1)
            batch_mean = sums / divisor
            # Deviations from their mean sum to 0, and so the mean has no part in the gradient of their squares.
            squared = squares(jax.lax.stop_gradient(batch_mean))
            if self.axis_name is not None:
                squared = jax.lax.psum(squared, self.axis_name)
            batch_var = squared / divisor
            mean = jnp.where(count > 0, batch_mean, mean)
            var = jnp.where(count > 0, batch_var, var)
            if not self.is_initializing():
                unbiased = jnp.where(count > 0, divisor / jnp.maximum(count - 1, 1), 1) * var
                self.mean.value = self.momentum * self.mean.value + (1 - self.momentum) * mean
                self.var.value = self.momentum * self.var.value + (1 - self.momentum) * unbiased
        return mean, self.scale * jax.lax.rsqrt(var + self.epsilon)


class ConvNormPool(nn.Module):
    """SAME convolution without bias, batch norm, ReLU and 2x2 max-pool, in an order that is cheap.

    Normalising after the pool handles a quarter of the values. The two commute where the norm's scale is positive; so
    filters whose scale is negative are flipped before the convolution, and what the pool finds is flipped back.

    On CPU, convolutions of few channels are computed by windows (see `conv_by_windows`), which is several times as
    fast as XLA's convolution there; on accelerators and for many channels XLA's own is used. Both are exact.

    Attributes:
      features: O.
      kernel_size: side of the square kernel, odd.
      dtype: dtype of the convolution; statistics, parameters and the result are float32.
      axis_name: axis of `jax.pmap` over which the batch is spread, or None.
    """

    features: int
    kernel_size: int = 3
    dtype: str = "float32"
    axis_name: str | None = None

    @nn.compact
    def __call__(self, x: jax.Array, mask: jax.Array | None = None, train: bool = False) -> jax.Array:
        """x [B, H, W, C] -> [B, H // 2, W // 2, O]; rows that mask [B] leaves out do not count in statistics."""
        _, height, width, channels = x.shape
        shape = (self.kernel_size, self.kernel_size, channels, self.features)
        kernel = self.param("kernel", nn.initializers.lecun_normal(), shape)
        norm = BatchNorm(self.features, axis_name=self.axis_name, name="norm")
        sign = jnp.where(norm.scale < 0, -1.0, 1.0)

        # Rows of zeros stay zeros, as there is no bias: they add nothing to the sums.
        x = keep_rows(x, mask).astype(self.dtype)
        kernel = (kernel * jnp.expand_dims(sign, (0, 1, 2))).astype(self.dtype)
        by_windows = jax.default_backend() == "cpu" and channels < 16 and height % 2 == width % 2 == 0
        if by_windows:
            y = conv_by_windows(x, kernel)
            pooled, axes, channel_axis = largest(y), (0, 2, 3, 4), 0
        else:
            y = convolve(x, kernel, stride=1, padding=self.kernel_size // 2)
            pooled, axes, channel_axis = max_pool_2x2(y), (0, 1, 2), 3

        count = count_rows(x, mask) * (height * width)
        y = y.astype(jnp.float32)

        def squares(mean: jax.Array) -> jax.Array:
            deviations = y - jnp.expand_dims(sign * mean, axes)
            of_rows = jnp.square(deviations).sum((0, 2, 3) if by_windows else (1, 2))
            of_rows = of_rows.T if by_windows else of_rows  # [B, O]
            total, counted = of_rows.sum(0), keep_rows(of_rows, mask).sum(0)
            # The value is that of the rows that count, the gradient that of all, which is as right and quicker than one
            # that differs from row to row: the others are zeros in x, and so give the kernel none, nor take any.
            return jax.lax.stop_gradient(counted) + (total - jax.lax.stop_gradient(total))

        mean, gain = norm.mean_and_gain(count, sign * y.sum(axes), squares, train)
        others = tuple(axis for axis in range(4) if axis != channel_axis)
        sign, mean, gain, bias = (jnp.expand_dims(v, others) for v in (sign, mean, gain, norm.bias))
        y = nn.relu((pooled.astype(jnp.float32) * sign - mean) * gain + bias)
        return y.transpose(3, 1, 2, 0) if by_windows else y


def convolve(x: jax.Array, kernel: jax.Array, stride: int, padding: int) -> jax.Array:
    """Convolution, channels last: x [B, *spatial, C], kernel [*sizes, C, O] -> [B, *spatial', O].

    On CPU, XLA lays out what the gradient of its own convolution becomes only outside of loops and conditionals
    (accumulation and compaction compute inside of them), and is 50 times as slow where it has not; this gradient comes
    laid out. Elsewhere it is XLA's own.

    Args:
      x: of one or two spatial axes.
      kernel: of as many.
      stride: along all of them.
      padding: zeros before and after each of them.
    """
    on_cpu = jax.default_backend() == "cpu"
    return (_convolve_laid_out if on_cpu else _convolve)(x, kernel, stride, padding)


def _convolve(x: jax.Array, kernel: jax.Array, stride: int, padding: int) -> jax.Array:
    return _channels_last(x, kernel, stride, [(padding, padding)] * (x.ndim - 2))


def _channels_last(
    x: jax.Array, kernel: jax.Array, stride: int, padding: list[tuple[int, int]], **dilation: tuple[int, ...]
) -> jax.Array:
    axes = "HW"[: x.ndim - 2]
    numbers = (f"N{axes}C", f"{axes}IO", f"N{axes}C")
    strides = (stride,) * len(axes)
    return jax.lax.conv_general_dilated(x, kernel, strides, padding, dimension_numbers=numbers, **dilation)


_convolve_laid_out = jax.custom_vjp(_convolve, nondiff_argnums=(2, 3))


def _convolve_forward(
    x: jax.Array, kernel: jax.Array, stride: int, padding: int
) -> tuple[jax.Array, tuple[jax.Array, jax.Array]]:
    return _convolve(x, kernel, stride, padding), (x, kernel)


def _convolve_backward(
    stride: int, padding: int, residuals: tuple[jax.Array, jax.Array], gradient: jax.Array
) -> tuple[jax.Array, jax.Array]:
    x, kernel = residuals
    spatial = x.ndim - 2
    axes, dilation = tuple(range(spatial)), (stride,) * spatial
    inputs, sizes = x.shape[1:-1], kernel.shape[:-2]
    reach = [(n - 1) * stride + 1 for n in gradient.shape[1:-1]]  # of the gradient, once it is dilated

    flipped = jnp.flip(kernel, axes).swapaxes(-1, -2)
    low = [size - 1 - padding for size in sizes]
    high = [n - r - lo + size - 1 for n, r, lo, size in zip(inputs, reach, low, sizes, strict=True)]
    to_x = _channels_last(gradient, flipped, 1, list(zip(low, high, strict=True)), lhs_dilation=dilation)

    # The batch is what is summed over, so it takes the place of the channels.
    columns, filters = x.swapaxes(0, -1), jnp.moveaxis(gradient, 0, -2)
    ends = [(padding, size + r - 1 - n - padding) for size, r, n in zip(sizes, reach, inputs, strict=True)]
    to_kernel = _channels_last(columns, filters, 1, ends, rhs_dilation=dilation)
    return to_x, jnp.moveaxis(to_kernel, 0, -2)


_convolve_laid_out.defvjp(_convolve_forward, _convolve_backward)


def conv_by_windows(x: jax.Array, kernel: jax.Array) -> jax.Array:
    """SAME convolution, sorted by position in the 2x2 window: x [B, H, W, C] -> [4, O, H // 2, W // 2, B].

    One matrix product. The (k + 1) x (k + 1) inputs that the four outputs of a window see are a column, and the four
    shifts of each filter within them are rows. Rows and batch come in an order that makes the columns out of long
    contiguous copies, and the maximum over a window one over the leading axis.

    Args:
      x: [B, H, W, C], H and W even.
      kernel: [k, k, C, O], k odd.
    """
    batch, height, width, channels = x.shape
    size, _, _, features = kernel.shape
    rows, columns, pad, taps = height // 2, width // 2, size // 2, (size + 1) // 2

    x = jnp.pad(x, ((0, 0), (pad, pad), (pad, pad), (0, 0)))
    x = x.reshape(batch, rows + taps - 1, 2, columns + taps - 1, 2, channels).transpose(2, 4, 5, 1, 3, 0)
    x = jnp.stack([x[..., j : j + columns, :] for j in range(taps)])
    x = jnp.stack([x[..., i : i + rows, :, :] for i in range(taps)])

    shifts = [((a, 1 - a), (b, 1 - b), (0, 0), (0, 0)) for a in (0, 1) for b in (0, 1)]
    kernel = jnp.stack([jnp.pad(kernel, shift) for shift in shifts])
    kernel = kernel.reshape(4, taps, 2, taps, 2, channels, features).transpose(0, 6, 1, 3, 2, 4, 5)

    y = mix(kernel.reshape(4 * features, -1), x.reshape(-1, rows, columns, batch))
    return y.reshape(4, features, rows, columns, batch)


@jax.custom_vjp
def mix(matrix: jax.Array, x: jax.Array) -> jax.Array:
    """Matrix product along the leading axis, [P, N] and [N, ...] -> [P, ...].

    The other axes are not merged into one, so that a batch among them can be spread over devices and stay where it is.
    JAX's own gradient of such a product ends in a transpose of the largest array here; this one does not.
    """
    return jnp.tensordot(matrix, x, axes=1)


def _mix_forward(matrix: jax.Array, x: jax.Array) -> tuple[jax.Array, tuple[jax.Array, jax.Array]]:
    return mix(matrix, x), (matrix, x)


def _mix_backward(residuals: tuple[jax.Array, jax.Array], gradient: jax.Array) -> tuple[jax.Array, jax.Array]:
    matrix, x = residuals
    others = tuple(range(1, x.ndim))
    return jnp.tensordot(gradient, x, axes=(others, others)), mix(matrix.T, gradient)


mix.defvjp(_mix_forward, _mix_backward)


def max_pool_2x2(x: jax.Array) -> jax.Array:
    """Maximum over 2x2 windows with stride 2: [B, H, W, C] -> [B, H // 2, W // 2, C].

    An odd last row or column is dropped. The gradient of `nn.max_pool` is a select-and-scatter, slow on CPU; this one
    is a comparison.
    """
    batch, height, width, channels = x.shape
    rows, columns = height // 2, width // 2
    x = x[:, : 2 * rows, : 2 * columns].reshape(batch, rows, 2, columns, 2, channels)
    return largest(x.transpose(2, 4, 0, 1, 3, 5).reshape(4, batch, rows, columns, channels))


@jax.custom_vjp
def largest(x: jax.Array) -> jax.Array:
    """Maximum over the leading axis, [N, ...] -> [...]; of equal values the first gets the gradient, as in PyTorch."""
    return functools.reduce(jnp.maximum, x)


def _largest_forward(x: jax.Array) -> tuple[jax.Array, tuple[jax.Array, ...]]:
    # Which one it is, not its value, is kept: XLA may compute x anew for the backward pass and round it otherwise, and
    # then nothing would equal the value.
    y, chosen = x[0], jnp.zeros(x.shape[1:], jnp.uint8)
    for index, value in enumerate(x[1:], start=1):
        chosen = jnp.where(value > y, jnp.uint8(index), chosen)
        y = jnp.maximum(y, value)
    return y, tuple(chosen == index for index in range(len(x)))


def _largest_backward(chosen: tuple[jax.Array, ...], gradient: jax.Array) -> tuple[jax.Array]:
    return (jnp.stack([jnp.where(part, gradient, 0) for part in chosen]),)


largest.defvjp(_largest_forward, _largest_backward)


def merge_frames(x: jax.Array, mask: jax.Array | None) -> tuple[jax.Array, jax.Array | None]:
    """Videos [B, T, H, W, C] and mask [B] as images [B * T, H, W, C] and mask [B * T]; images stay as they are."""
    if x.ndim == 4:
        return x, mask
    batch, frames, *image = x.shape
    return x.reshape(batch * frames, *image), None if mask is None else jnp.repeat(mask, frames)


def pool_frames(features: jax.Array, shape: tuple[int, ...]) -> jax.Array:
    """The mean over the frames of a video: [B * T, D] -> [B, D], for x.shape before `merge_frames`."""
    if len(shape) == 4:
        return features
    batch, frames, *_ = shape
    return features.reshape(batch, frames, -1).mean(axis=1)


def keep_rows(x: jax.Array, mask: jax.Array | None) -> jax.Array:
    """x [B, ...] with zeros in the rows that mask [B] leaves out."""
    return x if mask is None else jnp.where(jnp.expand_dims(mask, tuple(range(1, x.ndim))), x, 0)


def count_rows(x: jax.Array, mask: jax.Array | None) -> jax.Array:
    """How many rows of x [B, ...] mask [B] keeps, float32."""
    return jnp.float32(x.shape[0]) if mask is None else mask.sum(dtype=jnp.float32)
