//! The inner loop: one document against rows of φ. K is padded to KP, a multiple of 8; padding lanes are 0 and stay 0.

/// A row of KP lanes.
pub(super) type Row<const KP: usize> = [f32; KP];

/// Adds r·φ of every word to the accumulator, r = n / (φ·t), and returns it: `acc_k = Σ_w n_w φ_wk / (φ_w·t)`.
#[inline(always)]
pub(super) fn sweep<const KP: usize>(
    phi: &[Row<KP>],
    (words, counts): (&[u32], &[f32]),
    t: &Row<KP>,
) -> Row<KP> {
    let mut acc = [0.0; KP];
    for (&word, &count) in words.iter().zip(counts) {
        let row = &phi[word as usize];
        let r = count / dot(row, t).max(1e-30);
        for (sum, value) in acc.iter_mut().zip(row) {
            *sum += r * value;
        }
    }
    acc
}

/// The last sweep of a document: also adds r·t to each word's row of R, and returns the log-likelihood Σ n ln(φ·t) beside.
#[inline(always)]
pub(super) fn sweep_and_scatter<const KP: usize>(
    phi: &[Row<KP>],
    (words, counts): (&[u32], &[f32]),
    t: &Row<KP>,
    sums: &mut [Row<KP>],
) -> (Row<KP>, f64) {
    let mut acc = [0.0; KP];
    let mut log_likelihood = 0.0;
    for (&word, &count) in words.iter().zip(counts) {
        let row = &phi[word as usize];
        let s = dot(row, t).max(1e-30);
        let r = count / s;
        for (sum, value) in acc.iter_mut().zip(row) {
            *sum += r * value;
        }
        for (sum, value) in sums[word as usize].iter_mut().zip(t) {
            *sum += r * value;
        }
        log_likelihood += f64::from(count) * f64::from(s).ln();
    }
    (acc, log_likelihood)
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
