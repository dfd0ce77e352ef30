//! The inner loop: one document against rows of φ. K is padded to KP, a multiple of 8; padding lanes are 0 and stay 0.

/// A row of KP lanes.
pub(super) type Row<const KP: usize> = [f32; KP];

/// Words at a time: their divisions and logarithms fill a vector.
const STRIDE: usize = 8;

/// Adds r·φ of every word to the accumulator, r = n / (φ·t), and returns it: `acc_k = Σ_w n_w φ_wk / (φ_w·t)`.
#[inline(always)]
pub(super) fn sweep<const KP: usize>(
    phi: &[Row<KP>],
    (words, counts): (&[u32], &[f32]),
    t: &Row<KP>,
) -> Row<KP> {
    let mut acc = [0.0; KP];
    for (words, counts) in words.chunks(STRIDE).zip(counts.chunks(STRIDE)) {
        let (ratios, _) = ratios(phi, (words, counts), t);
        for (&word, r) in words.iter().zip(ratios) {
            for (sum, value) in acc.iter_mut().zip(&phi[word as usize]) {
                *sum += r * value;
            }
        }
    }
    acc
}

/// r = n / (φ·t) of up to eight words, and φ·t; 0 and 1 where there is no word.
#[inline(always)]
fn ratios<const KP: usize>(
    phi: &[Row<KP>],
    (words, counts): (&[u32], &[f32]),
    t: &Row<KP>,
) -> ([f32; STRIDE], [f32; STRIDE]) {
    let (mut ratios, mut sums) = ([0.0; STRIDE], [1.0; STRIDE]);
    for ((&word, &count), (ratio, sum)) in words
        .iter()
        .zip(counts)
        .zip(ratios.iter_mut().zip(&mut sums))
    {
        *sum = dot(&phi[word as usize], t).max(1e-30);
        *ratio = count;
    }
    for (ratio, sum) in ratios.iter_mut().zip(&sums) {
        *ratio /= sum;
    }
    (ratios, sums)
}

/// The last sweep of a document: also adds r·t to each word's row of R, and returns the log-likelihood Σ n ln(φ·t) beside.
#[inline(always)]
pub(super) fn sweep_and_scatter<const KP: usize>(
    phi: &[Row<KP>],
    (words, counts): (&[u32], &[f32]),
    t: &Row<KP>,
    rows: &mut [Row<KP>],
) -> (Row<KP>, f64) {
    let mut acc = [0.0; KP];
    let mut log_likelihood = 0.0;
    for (words, counts) in words.chunks(STRIDE).zip(counts.chunks(STRIDE)) {
        let (ratios, sums) = ratios(phi, (words, counts), t);
        for (&word, r) in words.iter().zip(ratios) {
            let row = &phi[word as usize];
            for (sum, value) in acc.iter_mut().zip(row) {
                *sum += r * value;
            }
            for (sum, value) in rows[word as usize].iter_mut().zip(t) {
                *sum += r * value;
            }
        }
        let mut logs = [0.0; STRIDE];
        for (log, sum) in logs.iter_mut().zip(&sums) {
            *log = ln(*sum);
        }
        for (count, log) in counts.iter().zip(logs) {
            log_likelihood += f64::from(*count) * f64::from(log);
        }
    }
    (acc, log_likelihood)
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

/// φ·t in one order on every processor: lanes of 8 first, then halves.
#[inline(always)]
pub(super) fn dot<const KP: usize>(row: &Row<KP>, t: &Row<KP>) -> f32 {
    let mut lanes = [0.0_f32; 8];
    for (row, t) in row.chunks_exact(8).zip(t.chunks_exact(8)) {
        for ((lane, left), right) in lanes.iter_mut().zip(row).zip(t) {
            *lane += left * right;
        }
    }
    let [a, b, c, d, e, f, g, h] = lanes;
    ((a + e) + (c + g)) + ((b + f) + (d + h))
}

/// Returns the topic mix weights g = a + N_j of a document under fixed φ, from a flat start: at most `sweeps_max` sweeps, until
/// the change is below `tolerance` times the sum. The first `topics` lanes are in use.
#[inline(always)]
pub(super) fn fold_in<const KP: usize>(
    phi: &[Row<KP>],
    document: (&[u32], &[f32]),
    (topics, a): (usize, f32),
    (sweeps_max, tolerance): (u32, f32),
) -> Row<KP> {
    let tokens: f32 = document.1.iter().sum();
    let mut g = [0.0; KP];
    #[expect(clippy::cast_precision_loss, reason = "at most 64 topics")]
    g[..topics].fill(a + tokens / topics as f32);
    for _ in 0..sweeps_max {
        let acc = sweep(phi, document, &g);
        let mut change = 0.0;
        let mut total = 0.0;
        for (g, acc) in g[..topics].iter_mut().zip(&acc) {
            let new = a + *g * acc;
            change += (new - *g).abs();
            total += new;
            *g = new;
        }
        if change < tolerance * total {
            break;
        }
    }
    g
}

#[cfg(test)]
mod tests {
    use super::ln;

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
