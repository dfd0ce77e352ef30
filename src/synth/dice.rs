//! Random numbers of one host and purpose.

use std::f64::consts::TAU;

use crate::ml::rng;

/// A stream that depends on its key alone.
#[derive(Clone, Debug)]
pub(super) struct Dice {
    seed: u64,
    drawn: u64,
}

impl Dice {
    pub(super) fn new(seed: u64, key: &[u64]) -> Self {
        Self {
            seed: rng::bits(seed, key),
            drawn: 0,
        }
    }

    fn bits(&mut self) -> u64 {
        self.drawn += 1;
        rng::bits(self.seed, &[self.drawn])
    }

    /// In (0, 1).
    #[expect(clippy::cast_precision_loss, reason = "53 bits are exact in f64")]
    pub(super) fn unit(&mut self) -> f64 {
        ((self.bits() >> 11) as f64 + 0.5) / 9_007_199_254_740_992.0
    }

    /// In 0..n; 0 for n = 0.
    pub(super) fn below(&mut self, n: u64) -> u64 {
        self.bits() % n.max(1)
    }

    pub(super) fn chance(&mut self, p: f64) -> bool {
        self.unit() < p
    }

    /// In low..high.
    pub(super) fn between(&mut self, low: f64, high: f64) -> f64 {
        low + (high - low) * self.unit()
    }

    /// Standard normal (Box and Muller 1958).
    fn normal(&mut self) -> f64 {
        let radius = (-2.0 * self.unit().ln()).sqrt();
        radius * (TAU * self.unit()).cos()
    }

    /// Log-normal, cut at four sigma.
    pub(super) fn log_normal(&mut self, median: f64, sigma: f64) -> f64 {
        median * (sigma * self.normal().clamp(-4.0, 4.0)).exp()
    }

    /// Gap of a Poisson process of this rate.
    pub(super) fn gap(&mut self, rate: f64) -> f64 {
        -self.unit().ln() / rate
    }

    /// Rank from 0 of `n` by Zipf's law of exponent 1.1, by its continuous form.
    #[expect(
        clippy::cast_precision_loss,
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "a rank below n"
    )]
    pub(super) fn zipf(&mut self, n: u64) -> u64 {
        let exponent = -0.1;
        let most = (n.max(1) as f64).powf(exponent);
        let x = (1.0 - self.unit() * (1.0 - most)).powf(1.0 / exponent);
        (x as u64).saturating_sub(1).min(n.saturating_sub(1))
    }
}
