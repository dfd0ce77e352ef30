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
    let mut compared = Compared::new(&rows, &frequent, topics);
    while topics > wanted {
        let (left, right) = compared.closest();
        compared.merge(left, right);
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

/// Topics by the words by which they are compared.
struct Compared {
    /// Counts of each topic.
    columns: Vec<Vec<f64>>,
    /// Entropy of each topic.
    alone: Vec<f64>,
    /// Entropy of each union of two, on both sides of the diagonal.
    unions: Vec<Vec<f64>>,
}

impl Compared {
    fn new<const N: usize>(rows: &[Cells<N>], words: &[usize], topics: usize) -> Self {
        let column = |k: usize| words.iter().map(move |&word| rows[word].as_flattened()[k]);
        let columns: Vec<Vec<f64>> = (0..topics).map(|k| column(k).collect()).collect();
        let alone = columns.iter().map(|column| entropy(column.iter().copied()));
        let mut compared = Self {
            alone: alone.collect(),
            unions: vec![vec![0.0; topics]; topics],
            columns,
        };
        for left in 0..topics {
            (left + 1..topics).for_each(|right| compared.compare(left, right));
        }
        compared
    }

    fn compare(&mut self, left: usize, right: usize) {
        let both = self.columns[left].iter().zip(&self.columns[right]);
        let union = entropy(both.map(|(left, right)| left + right));
        self.unions[left][right] = union;
        self.unions[right][left] = union;
    }

    /// Returns the two whose union loses least.
    fn closest(&self) -> (usize, usize) {
        let mut best = (f64::INFINITY, 0, 1);
        for left in 0..self.alone.len() {
            for right in left + 1..self.alone.len() {
                let cost = self.unions[left][right] - self.alone[left] - self.alone[right];
                if cost < best.0 {
                    best = (cost, left, right);
                }
            }
        }
        (best.1, best.2)
    }

    /// Adds the right one to the left one; the last takes its place.
    fn merge(&mut self, left: usize, right: usize) {
        let added = self.columns.swap_remove(right);
        let sums = self.columns[left].iter_mut().zip(added);
        sums.for_each(|(sum, count)| *sum += count);
        self.alone.swap_remove(right);
        self.alone[left] = entropy(self.columns[left].iter().copied());
        self.unions.swap_remove(right);
        for row in &mut self.unions {
            row.swap_remove(right);
        }
        for other in (0..self.alone.len()).filter(|&other| other != left) {
            self.compare(left, other);
        }
    }
}

/// −Σ x ln(x / Σ x).
fn entropy(values: impl Iterator<Item = f64> + Clone) -> f64 {
    let total: f64 = values.clone().sum();
    let terms = values.filter(|&x| x > 0.0).map(|x| x * x.ln());
    total * total.max(1e-300).ln() - terms.sum::<f64>()
}
