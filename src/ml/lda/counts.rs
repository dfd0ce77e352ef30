//! S, the expected counts of each word and topic, in sums that are exact in any order.

use crate::ml::lda::kernel::Row;
use crate::ml::lda::shard::Part;
use crate::ml::lda::simd::Lanes;
use crate::ml::lda::simd::WIDTH;
use crate::ml::lda::simd::Work;
use crate::ml::lda::simd::dispatch;

/// A row of topics in f64.
pub(super) type Cells<const N: usize> = [[f64; WIDTH]; N];

/// S, and its sums over words: both are `scale` times what is stored, so that a decay touches no row.
pub(super) struct Counts<const N: usize> {
    rows: Vec<Cells<N>>,
    sums: Cells<N>,
    scale: f64,
}

/// Below this the rows are scaled, and earlier where there are many tokens.
const SCALE_MIN: f64 = 1.0 / 64.0;
/// Multiples of 2^−20 are exact up to 2^33; a quarter of it, since a minibatch may weigh more than its share of the tokens.
const STORED_MAX: f64 = 2_147_483_648.0;

impl<const N: usize> Counts<N> {
    pub(super) fn zero(words: usize) -> Self {
        Self {
            rows: vec![[[0.0; WIDTH]; N]; words],
            sums: [[0.0; WIDTH]; N],
            scale: 1.0,
        }
    }

    /// Rounds every cell to a multiple of 2^−20.
    pub(super) fn new(mut rows: Vec<Cells<N>>) -> Self {
        let mut sums = [[0.0; WIDTH]; N];
        for row in &mut rows {
            let cells = row.as_flattened_mut().iter_mut();
            for (cell, sum) in cells.zip(sums.as_flattened_mut()) {
                *cell = exact(*cell);
                *sum += *cell;
            }
        }
        Self {
            rows,
            sums,
            scale: 1.0,
        }
    }

    /// Returns V.
    pub(super) fn words(&self) -> usize {
        self.rows.len()
    }

    /// All counts times 1 − `rho`; `tokens` is what they add up to.
    #[expect(clippy::cast_precision_loss, reason = "a bound")]
    pub(super) fn decay(&mut self, rho: f64, tokens: u64) {
        self.scale *= 1.0 - rho;
        if self.scale < SCALE_MIN.max(tokens as f64 / STORED_MAX) {
            let scaled = Self {
                rows: std::mem::take(&mut self.rows),
                ..*self
            };
            *self = Self::new(scaled.into_rows());
        }
    }

    /// Adds `weight` times a part. Cells stay multiples of 2^−20, so the order of parts does not matter.
    pub(super) fn add(&mut self, part: &Part<N>, dictionary: &[u32], weight: f64) {
        dispatch(AddPart {
            weight: self.weight(weight),
            counts: self,
            part,
            dictionary,
        });
    }

    /// Returns what a part must be multiplied by where it is added `weight` times.
    pub(super) fn weight(&self, weight: f64) -> f64 {
        weight / self.scale
    }

    /// Adds sums of parts that were multiplied by [`Counts::weight`], a row of topics for each of some words.
    pub(super) fn add_sums(&mut self, words: &[u32], cells: &[f64], topics: usize) {
        for (&word, values) in words.iter().zip(cells.chunks_exact(topics)) {
            let row = &mut self.rows[word as usize];
            let sums = self.sums.as_flattened_mut().iter_mut();
            let cells = row.as_flattened_mut().iter_mut().zip(sums);
            for ((cell, sum), value) in cells.zip(values) {
                *cell += value;
                *sum += value;
            }
        }
    }

    /// Sets every count to 0.
    pub(super) fn clear(&mut self) {
        self.rows.fill([[0.0; WIDTH]; N]);
        self.sums = [[0.0; WIDTH]; N];
        self.scale = 1.0;
    }

    /// Returns φ rows of the words in `dictionary`; lanes from `topics` on are 0.
    #[inline(always)]
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_precision_loss,
        reason = "the kernel works in f32"
    )]
    pub(super) fn phi(&self, dictionary: &[u32], topics: usize, b: f32) -> Vec<Row<N>> {
        let b = f64::from(b);
        let words = self.rows.len() as f64;
        let mut factors = [[0.0; WIDTH]; N];
        let mut offsets = [[0.0; WIDTH]; N];
        for topic in 0..topics {
            let norm = 1.0 / (self.sums.as_flattened()[topic] * self.scale + words * b);
            factors.as_flattened_mut()[topic] = norm * self.scale;
            offsets.as_flattened_mut()[topic] = norm * b;
        }
        let mut rows = vec![[[0.0; WIDTH]; N]; dictionary.len()];
        for (row, &word) in rows.iter_mut().zip(dictionary) {
            let cells = &self.rows[word as usize];
            for vector in 0..N {
                for lane in 0..WIDTH {
                    let scaled = cells[vector][lane] * factors[vector][lane];
                    row[vector][lane] = (scaled + offsets[vector][lane]) as f32;
                }
            }
        }
        rows
    }

    /// Returns S.
    pub(super) fn into_rows(mut self) -> Vec<Cells<N>> {
        let cells = self.rows.as_flattened_mut().as_flattened_mut();
        cells.iter_mut().for_each(|cell| *cell *= self.scale);
        self.rows
    }
}

/// Rounds a count to a multiple of 2^−20, so that f64 sums are exact in any order.
#[inline(always)]
pub(super) fn exact(count: f64) -> f64 {
    // 1.5 · 2^(52 − 20): adding it makes the last bit of a number worth 2^−20.
    const ROUND: f64 = 6_442_450_944.0;
    (count + ROUND) - ROUND
}

/// Work of [`Counts::add`].
struct AddPart<'a, const N: usize> {
    counts: &'a mut Counts<N>,
    part: &'a Part<N>,
    dictionary: &'a [u32],
    weight: f64,
}

impl<const N: usize> Work for AddPart<'_, N> {
    type Output = ();

    #[inline(always)]
    fn run<S: Lanes>(self, _: S) {
        // Sums stay in registers while rows are written.
        let mut sums = self.counts.sums;
        for (row, &word) in self.part.rows.iter().zip(self.dictionary) {
            let cells = &mut self.counts.rows[word as usize];
            for vector in 0..N {
                for lane in 0..WIDTH {
                    let value = exact(f64::from(row[vector][lane]) * self.weight);
                    cells[vector][lane] += value;
                    sums[vector][lane] += value;
                }
            }
        }
        self.counts.sums = sums;
    }
}
