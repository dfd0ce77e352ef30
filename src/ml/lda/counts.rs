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
    grain: Grain,
}

/// Below this the rows are scaled, and earlier where there are many tokens.
const SCALE_MIN: f64 = 1.0 / 64.0;
/// The most tokens of which sums are exact, in multiples of 1.
pub(super) const TOKENS_MAX: u64 = 1 << 52;
/// Up to so many tokens counts are multiples of [`FINEST`]; above, of as many times it as there are times more tokens.
const TOKENS_FINEST: u64 = u32::MAX as u64;
/// 2^−20.
const FINEST: f64 = 1.0 / 1_048_576.0;

/// What counts are multiples of, so that f64 sums of all tokens are exact in any order: a power of two.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Grain(f64);

impl Grain {
    /// 2^−20 where there are less than 2^32 tokens.
    pub(super) fn of(tokens: u64) -> Self {
        let mut grain = FINEST;
        let mut exact = TOKENS_FINEST;
        while exact < tokens {
            (grain, exact) = (grain * 2.0, exact.saturating_mul(2));
        }
        Self(grain)
    }

    /// Returns it as a number.
    pub(super) fn unit(self) -> f64 {
        self.0
    }

    /// Rounds a count.
    #[inline(always)]
    pub(super) fn round(self, count: f64) -> f64 {
        // 1.5 · 2^52 of them: adding it makes the last bit of a number worth one.
        let round = self.0 * 6_755_399_441_055_744.0;
        (count + round) - round
    }

    /// A quarter of what is exact, since a minibatch may weigh more than its share of the tokens.
    fn stored_max(self) -> f64 {
        self.0 * 2_251_799_813_685_248.0
    }
}

impl<const N: usize> Counts<N> {
    pub(super) fn zero(words: usize, grain: Grain) -> Self {
        Self {
            rows: vec![[[0.0; WIDTH]; N]; words],
            sums: [[0.0; WIDTH]; N],
            scale: 1.0,
            grain,
        }
    }

    /// Rounds every cell.
    pub(super) fn new(mut rows: Vec<Cells<N>>, grain: Grain) -> Self {
        let mut sums = [[0.0; WIDTH]; N];
        for row in &mut rows {
            let cells = row.as_flattened_mut().iter_mut();
            for (cell, sum) in cells.zip(sums.as_flattened_mut()) {
                *cell = grain.round(*cell);
                *sum += *cell;
            }
        }
        Self {
            rows,
            sums,
            scale: 1.0,
            grain,
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
        if self.scale < SCALE_MIN.max(tokens as f64 / self.grain.stored_max()) {
            let scaled = Self {
                rows: std::mem::take(&mut self.rows),
                ..*self
            };
            *self = Self::new(scaled.into_rows(), self.grain);
        }
    }

    /// Adds `weight` times a part. Cells stay multiples of the grain, so the order of parts does not matter.
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
        let (mut sums, grain) = (self.counts.sums, self.counts.grain);
        for (row, &word) in self.part.rows.iter().zip(self.dictionary) {
            let cells = &mut self.counts.rows[word as usize];
            for vector in 0..N {
                for lane in 0..WIDTH {
                    let value = grain.round(f64::from(row[vector][lane]) * self.weight);
                    cells[vector][lane] += value;
                    sums[vector][lane] += value;
                }
            }
        }
        self.counts.sums = sums;
    }
}
