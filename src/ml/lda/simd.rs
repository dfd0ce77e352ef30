//! Eight lanes of f32 in one order of operations on every processor: AVX2 with fused multiply-add where there is, else the same
//! lanes one by one.

#[cfg(target_arch = "x86_64")]
use std::arch::x86_64::__m256;

use pulp::Scalar256b;
use pulp::Simd;
use pulp::f32x8;

/// Topics of one vector.
pub(super) const WIDTH: usize = 8;

/// Instructions of a processor.
pub(super) trait Lanes: Simd<f32s = f32x8> {
    /// Returns the sum of each of eight vectors, ((0+1) + (2+3)) + ((4+5) + (6+7)).
    #[inline(always)]
    fn sums(self, vectors: [f32x8; WIDTH]) -> f32x8 {
        pulp::cast(vectors.map(sum))
    }
}

impl Lanes for Scalar256b {}

#[cfg(target_arch = "x86_64")]
impl Lanes for pulp::x86::V3 {
    #[inline(always)]
    fn sums(self, vectors: [f32x8; WIDTH]) -> f32x8 {
        let [a, b, c, d, e, f, g, h]: [__m256; WIDTH] = pulp::cast(vectors);
        let avx = self.avx;
        let first = avx._mm256_hadd_ps(avx._mm256_hadd_ps(a, b), avx._mm256_hadd_ps(c, d));
        let second = avx._mm256_hadd_ps(avx._mm256_hadd_ps(e, f), avx._mm256_hadd_ps(g, h));
        let low = avx._mm256_permute2f128_ps::<0x20>(first, second);
        let high = avx._mm256_permute2f128_ps::<0x31>(first, second);
        pulp::cast(avx._mm256_add_ps(low, high))
    }
}

/// Returns the sum of the lanes in the order of [`Lanes::sums`].
#[inline(always)]
pub(super) fn sum(vector: f32x8) -> f32 {
    let [a, b, c, d, e, f, g, h]: [f32; WIDTH] = pulp::cast(vector);
    ((a + b) + (c + d)) + ((e + f) + (g + h))
}

/// What is compiled for each kind of processor: `run` has to be `inline(always)` down to the arithmetic.
pub(super) trait Work {
    type Output;

    fn run<S: Lanes>(self, simd: S) -> Self::Output;
}

/// Runs `work` with the best instructions of this processor.
#[inline]
pub(super) fn dispatch<W: Work>(work: W) -> W::Output {
    #[cfg(target_arch = "x86_64")]
    if let Some(simd) = pulp::x86::V3::try_new() {
        return simd.vectorize(OnV3(simd, work));
    }
    work.run(Scalar256b)
}

#[cfg(target_arch = "x86_64")]
struct OnV3<W>(pulp::x86::V3, W);

#[cfg(target_arch = "x86_64")]
impl<W: Work> pulp::NullaryFnOnce for OnV3<W> {
    type Output = W::Output;

    #[inline(always)]
    fn call(self) -> W::Output {
        self.1.run(self.0)
    }
}

/// Evaluates an expression with the number of vectors of a row as a constant: `with_vectors!(topics, N => f::<N>())`.
macro_rules! with_vectors {
    ($topics:expr, $vectors:ident => $body:expr) => {
        with_vectors!(@ $topics, $vectors => $body; 1 2 3 4 5 6 7)
    };
    (@ $topics:expr, $vectors:ident => $body:expr; $($count:literal)*) => {
        match usize::div_ceil($topics, crate::ml::lda::simd::WIDTH) {
            $($count => {
                const $vectors: usize = $count;
                $body
            })*
            _ => {
                const $vectors: usize = 8;
                $body
            }
        }
    };
}
pub(super) use with_vectors;
