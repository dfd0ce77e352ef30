//! The inner loop: one document against rows of φ. K is padded to whole vectors; padding lanes are 0 and stay 0.

use pulp::f32x8;

use crate::ml::lda::simd::Lanes;
use crate::ml::lda::simd::WIDTH;
use crate::ml::lda::simd::sum;

/// A row of topics.
pub(super) type Row<const N: usize> = [[f32; WIDTH]; N];

/// A row in registers.
type Vectors<const N: usize> = [f32x8; N];

/// φ·t below this counts as this.
const DOT_MIN: f32 = 1e-30;

#[inline(always)]
fn load<const N: usize>(row: &Row<N>) -> Vectors<N> {
    let mut vectors = [f32x8(0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0); N];
    for (vector, lanes) in vectors.iter_mut().zip(row) {
        *vector = pulp::cast(*lanes);
    }
    vectors
}

#[inline(always)]
fn store<const N: usize>(vectors: Vectors<N>) -> Row<N> {
    let mut row = [[0.0; WIDTH]; N];
    for (lanes, vector) in row.iter_mut().zip(vectors) {
        *lanes = pulp::cast(vector);
    }
    row
}

/// Lanes of φ·t, not yet summed.
#[inline(always)]
fn products<S: Lanes, const N: usize>(simd: S, row: &Row<N>, t: &Vectors<N>) -> f32x8 {
    let mut sums = simd.splat_f32s(0.0);
    for (lanes, t) in row.iter().zip(t) {
        sums = simd.mul_add_f32s(pulp::cast(*lanes), *t, sums);
    }
    sums
}

/// φ·t.
#[inline(always)]
pub(super) fn dot<S: Lanes, const N: usize>(simd: S, row: &Row<N>, t: &Row<N>) -> f32 {
    sum(products(simd, row, &load(t)))
}

/// Up to eight words of a document under t: r = n / (φ·t), and φ·t; 0 and 1 where there is no word.
#[inline(always)]
fn ratios<S: Lanes, const N: usize>(
    simd: S,
    phi: &[Row<N>],
    (words, counts): (&[u32], &[f32]),
    t: &Vectors<N>,
) -> (f32x8, f32x8) {
    // The loop over eight words unrolls, and the vectors stay in registers.
    if let (Some(words), Some(counts)) = (words.first_chunk::<WIDTH>(), counts.first_chunk()) {
        let mut vectors = [simd.splat_f32s(0.0); WIDTH];
        for (vector, &word) in vectors.iter_mut().zip(words) {
            *vector = products(simd, &phi[word as usize], t);
        }
        return ratios_of(simd, simd.sums(vectors), counts);
    }
    let (mut sums, mut padded) = ([1.0; WIDTH], [0.0; WIDTH]);
    padded[..counts.len()].copy_from_slice(counts);
    for (total, &word) in sums.iter_mut().zip(words) {
        *total = sum(products(simd, &phi[word as usize], t));
    }
    ratios_of(simd, pulp::cast(sums), &padded)
}

#[inline(always)]
fn ratios_of<S: Lanes>(simd: S, sums: f32x8, counts: &[f32; WIDTH]) -> (f32x8, f32x8) {
    let sums = simd.max_f32s(sums, simd.splat_f32s(DOT_MIN));
    (simd.div_f32s(pulp::cast(*counts), sums), sums)
}

/// acc + r·row.
#[inline(always)]
fn add_scaled<S: Lanes, const N: usize>(simd: S, acc: &mut Vectors<N>, ratio: f32x8, row: &Row<N>) {
    for (sum, lanes) in acc.iter_mut().zip(row) {
        *sum = simd.mul_add_f32s(ratio, pulp::cast(*lanes), *sum);
    }
}

/// Returns `acc_k = Σ_w n_w φ_wk / (φ_w·t)`.
#[inline(always)]
fn sweep<S: Lanes, const N: usize>(
    simd: S,
    phi: &[Row<N>],
    (words, counts): (&[u32], &[f32]),
    t: &Vectors<N>,
) -> Vectors<N> {
    let mut acc = [simd.splat_f32s(0.0); N];
    for (words, counts) in words.chunks(WIDTH).zip(counts.chunks(WIDTH)) {
        let (ratios, _) = ratios(simd, phi, (words, counts), t);
        let ratios: [f32; WIDTH] = pulp::cast(ratios);
        for (&word, ratio) in words.iter().zip(ratios) {
            add_scaled(simd, &mut acc, simd.splat_f32s(ratio), &phi[word as usize]);
        }
    }
    acc
}

/// The last sweep of a document: also adds r·t to each word's row of R. Returns t·acc, which is N_j, and the log-likelihood
/// Σ n ln(φ·t).
#[inline(always)]
pub(super) fn sweep_and_scatter<S: Lanes, const N: usize>(
    simd: S,
    phi: &[Row<N>],
    (words, counts): (&[u32], &[f32]),
    t: &Row<N>,
    rows: &mut [Row<N>],
) -> (Row<N>, f64) {
    let t = load(t);
    let mut acc = [simd.splat_f32s(0.0); N];
    let mut log_likelihood = 0.0;
    for (words, counts) in words.chunks(WIDTH).zip(counts.chunks(WIDTH)) {
        let (ratios, sums) = ratios(simd, phi, (words, counts), &t);
        let ratios: [f32; WIDTH] = pulp::cast(ratios);
        for (&word, ratio) in words.iter().zip(ratios) {
            let ratio = simd.splat_f32s(ratio);
            add_scaled(simd, &mut acc, ratio, &phi[word as usize]);
            let row = &mut rows[word as usize];
            let mut sums = load(row);
            for (sum, t) in sums.iter_mut().zip(&t) {
                *sum = simd.mul_add_f32s(ratio, *t, *sum);
            }
            *row = store(sums);
        }
        let logs = logs(&pulp::cast(sums));
        for (count, log) in counts.iter().zip(logs) {
            log_likelihood += f64::from(*count) * f64::from(log);
        }
    }
    for (acc, t) in acc.iter_mut().zip(&t) {
        *acc = simd.mul_f32s(*acc, *t);
    }
    (store(acc), log_likelihood)
}

/// Natural logarithm of a positive normal number to about 1e-7, the same bits on every processor, which the C library does not
/// promise; it decides when a fit has converged. Polynomial of Moshier's Cephes library (`logf`).
#[inline(always)]
#[expect(
    clippy::cast_precision_loss,
    clippy::excessive_precision,
    reason = "as published; exponents are small"
)]
pub(super) fn ln(x: f32) -> f32 {
    const HALF_ROOT: u32 = 0x3f35_04f3;
    // Mantissa in √½ .. √2.
    let shifted = x.to_bits().wrapping_sub(HALF_ROOT);
    let exponent = (shifted.cast_signed() >> 23) as f32;
    let mantissa = f32::from_bits((shifted & 0x007f_ffff) + HALF_ROOT);
    let x = mantissa - 1.0;
    let z = x * x;
    let mut y = 7.037_683_6e-2;
    for coefficient in [
        -1.151_461e-1,
        1.167_699_84e-1,
        -1.242_014_08e-1,
        1.424_932_28e-1,
        -1.666_805_77e-1,
        2.000_071_48e-1,
        -2.499_999_4e-1,
        3.333_333_12e-1,
    ] {
        y = y * x + coefficient;
    }
    y = y * x * z + exponent * -2.121_944_4e-4 - 0.5 * z;
    x + y + exponent * 0.693_359_375
}

/// A loop, and none of arrays' `map`, which is a call.
#[inline(always)]
fn logs(lanes: &[f32; WIDTH]) -> [f32; WIDTH] {
    let mut logs = *lanes;
    for log in &mut logs {
        *log = ln(*log);
    }
    logs
}

/// Returns Σ ln of the first `topics` lanes, which are positive.
#[inline(always)]
pub(super) fn sum_of_logs<const N: usize>(row: &Row<N>, topics: usize) -> f64 {
    let mut all = [[0.0; WIDTH]; N];
    for (all, lanes) in all.iter_mut().zip(row) {
        *all = logs(lanes);
    }
    let used = &all.as_flattened()[..topics];
    used.iter().map(|&log| f64::from(log)).sum()
}

/// Returns the sum of a row.
#[inline(always)]
pub(super) fn total<S: Lanes, const N: usize>(simd: S, row: &Row<N>) -> f32 {
    total_of(simd, &load(row))
}

#[inline(always)]
fn total_of<S: Lanes, const N: usize>(simd: S, vectors: &Vectors<N>) -> f32 {
    let mut sums = simd.splat_f32s(0.0);
    for vector in vectors {
        sums = simd.add_f32s(sums, *vector);
    }
    sum(sums)
}

/// Returns `value` in the first `topics` lanes, 0 in the others.
#[inline(always)]
pub(super) fn fill<const N: usize>(topics: usize, value: f32) -> Row<N> {
    let mut row = [[0.0; WIDTH]; N];
    row.as_flattened_mut()[..topics].fill(value);
    row
}

/// Returns the topic mix weights g = a + N_j of a document under fixed φ, from a flat start: at most `sweeps_max` sweeps, until
/// the change is below `tolerance` times the sum. The first `topics` lanes are in use.
#[inline(always)]
pub(super) fn fold_in<S: Lanes, const N: usize>(
    simd: S,
    phi: &[Row<N>],
    document: (&[u32], &[f32]),
    (topics, a): (usize, f32),
    (sweeps_max, tolerance): (u32, f32),
) -> Row<N> {
    let tokens: f32 = document.1.iter().sum();
    #[expect(clippy::cast_precision_loss, reason = "at most 64 topics")]
    let flat = a + tokens / topics as f32;
    let mut g = load(&fill::<N>(topics, flat));
    let prior = load(&fill::<N>(topics, a));
    for _ in 0..sweeps_max {
        let acc = sweep(simd, phi, document, &g);
        let mut changes = simd.splat_f32s(0.0);
        for ((g, acc), a) in g.iter_mut().zip(&acc).zip(&prior) {
            let new = simd.mul_add_f32s(*g, *acc, *a);
            changes = simd.add_f32s(changes, simd.abs_f32s(simd.sub_f32s(new, *g)));
            *g = new;
        }
        if sum(changes) < tolerance * total_of(simd, &g) {
            break;
        }
    }
    store(g)
}

#[cfg(test)]
mod tests {
    use pulp::Scalar256b;

    use super::Row;
    use super::fold_in;
    use super::ln;
    use super::sweep_and_scatter;
    use crate::ml::lda::simd::Lanes;
    use crate::ml::lda::simd::Work;
    use crate::ml::lda::simd::dispatch;
    use crate::ml::rng;

    struct Sweeps<'a> {
        phi: &'a [Row<3>],
        document: (&'a [u32], &'a [f32]),
    }

    impl Work for Sweeps<'_> {
        type Output = (Row<3>, Vec<Row<3>>, f64);

        #[inline(always)]
        fn run<S: Lanes>(self, simd: S) -> Self::Output {
            let mut rows = vec![Row::default(); self.phi.len()];
            let t = fold_in(simd, self.phi, self.document, (20, 0.1), (5, 0.0));
            let (counts, log) = sweep_and_scatter(simd, self.phi, self.document, &t, &mut rows);
            (counts, rows, log)
        }
    }

    /// Documents of 0 to 20 words: whole and broken vectors of words.
    #[test]
    fn every_processor_has_the_same_bits() {
        let unit = |key: &[u64]| (rng::bits(7, key) >> 40) as f32 / 16_777_216.0;
        let mut phi = vec![Row::<3>::default(); 20];
        for (word, row) in (0..).zip(&mut phi) {
            for (topic, cell) in (0..20).zip(row.as_flattened_mut()) {
                *cell = unit(&[word, topic]) * 1e-3;
            }
        }
        for length in 0..=20 {
            let words: Vec<u32> = (0..length).rev().collect();
            let counts: Vec<f32> = (0..length).map(|n| (n * n * 37 + 1) as f32).collect();
            let work = || Sweeps {
                phi: &phi,
                document: (&words, &counts),
            };
            let (counts, rows, log) = dispatch(work());
            let portable = work().run(Scalar256b);
            assert_eq!(counts, portable.0);
            assert_eq!(rows, portable.1);
            assert_eq!(log.to_bits(), portable.2.to_bits());
            assert!(length == 0 || log != 0.0);
        }
    }

    #[test]
    fn ln_is_close() {
        for step in 0..1_800_000_u32 {
            let x = f32::from_bits(0x0d00_0000 + step * 1021);
            let exact = f64::from(x).ln();
            let error = (f64::from(ln(x)) - exact).abs();
            assert!(error <= 2e-7 * exact.abs().max(1.0), "{x}: {error}");
        }
    }
}
