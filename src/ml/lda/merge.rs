//! Merges superfluous topics.

use crate::ml::lda::counts::Cells;

/// Words by which topics are compared: the most frequent ones; the rest moves no decision and would cost most of the time.
const WORDS_COMPARED: usize = 1 << 15;

/// Merges the two topics whose union loses least log-likelihood of words, until `wanted` are left; ties go to the lower numbers.
pub(super) fn merge_topics<const N: usize>(
    mut rows: Vec<Cells<N>>,
    mut topics: usize,
    wanted: usize,
) -> Vec<Cells<N>> {
    let mut by_count: Vec<usize> = (0..rows.len()).collect();
    let count = |word: &usize| rows[*word].as_flattened().iter().sum::<f64>();
    let compared = WORDS_COMPARED.min(rows.len());
    if compared < rows.len() {
        by_count.select_nth_unstable_by(compared, |left, right| {
            count(right).total_cmp(&count(left)).then(left.cmp(right))
        });
    }
    let mut frequent = by_count;
    frequent.truncate(compared);
    frequent.sort_unstable();
    while topics > wanted {
        let columns: Vec<Vec<f64>> = (0..topics)
            .map(|k| {
                frequent
                    .iter()
                    .map(|&word| rows[word].as_flattened()[k])
                    .collect()
            })
            .collect();
        let alone: Vec<f64> = columns
            .iter()
            .map(|column| entropy(column.iter().copied()))
            .collect();
        let mut best = (f64::INFINITY, 0, 1);
        for left in 0..topics {
            for right in left + 1..topics {
                let both = columns[left]
                    .iter()
                    .zip(&columns[right])
                    .map(|(l, r)| l + r);
                let cost = entropy(both) - alone[left] - alone[right];
                if cost < best.0 {
                    best = (cost, left, right);
                }
            }
        }
        let (_, left, right) = best;
        topics -= 1;
        for row in &mut rows {
            let row = row.as_flattened_mut();
            row[left] += row[right];
            row[right] = row[topics];
            row[topics] = 0.0;
        }
    }
    rows
}

/// −Σ x ln(x / Σ x).
fn entropy(values: impl Iterator<Item = f64> + Clone) -> f64 {
    let total: f64 = values.clone().sum();
    let terms = values.filter(|&x| x > 0.0).map(|x| x * x.ln());
    total * total.max(1e-300).ln() - terms.sum::<f64>()
}
