//! Logarithmic bins.

use crate::word::Compat;

/// Returns the bin of a byte or packet count, ⌈log2(`count` + 1)⌉, 0–63.
///
/// [`Compat::Mended`] is exact integer arithmetic. [`Compat::Spot`] is Spot's floating-point form: one lower at some counts from
/// 2^48 on, and 0 for 2^63 − 1, where its `count + 1` overflows. `count` must not be negative; the record filter sees to that.
#[must_use]
pub fn ceil_log2_plus_one(count: i64, compat: Compat) -> u8 {
    match compat {
        Compat::Mended => bit_length(count),
        Compat::Spot => spot_ceil_log2(count.wrapping_add(1)),
    }
}

/// ⌈log2(v + 1)⌉ is the number of bits of v.
fn bit_length(count: i64) -> u8 {
    let bits = 64 - count.max(0).leading_zeros();
    u8::try_from(bits).unwrap_or(u8::MAX)
}

#[expect(
    clippy::cast_precision_loss,
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "Spot's rounding is what is asked for; a float cast of NaN gives 0, as the JVM's does"
)]
fn spot_ceil_log2(value: i64) -> u8 {
    ((value as f64).log10() / 2_f64.log10()).ceil() as u8
}
