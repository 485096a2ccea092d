//! A source of choices: everything of a case comes out of one, seeded by the run's seed and the case's number.

use rand::rngs::StdRng;
use rand::{RngExt as _, SeedableRng};

/// Draws choices.
pub struct Draw {
    rng: StdRng,
}

impl Draw {
    /// The choices of one number of one stream of a seed.
    pub fn new(seed: u64, stream: Stream, number: u64) -> Self {
        let mut key = [0u8; 32];
        key[..8].copy_from_slice(&seed.to_le_bytes());
        key[8..16].copy_from_slice(&number.to_le_bytes());
        key[16] = stream as u8;
        Self {
            rng: StdRng::from_seed(key),
        }
    }

    /// True in this share of draws.
    pub fn chance(&mut self, share: f64) -> bool {
        self.rng.random_bool(share)
    }

    /// `Some` in this share of draws.
    pub fn maybe<T>(&mut self, share: f64, value: impl FnOnce(&mut Self) -> T) -> Option<T> {
        self.chance(share).then(|| value(self))
    }

    /// From `least` to `most`, both included.
    pub fn range(&mut self, least: u32, most: u32) -> u32 {
        self.rng.random_range(least..=most.max(least))
    }

    /// An index below `len`, which is at least 1.
    pub fn index(&mut self, len: usize) -> usize {
        self.rng.random_range(0..len.max(1))
    }

    /// One of these.
    pub fn pick<T: Copy>(&mut self, choices: &[T]) -> T {
        choices[self.index(choices.len())]
    }

    /// Roughly normal, of unit variance.
    pub fn normal(&mut self) -> f32 {
        let sum: f32 = (0..4).map(|_| self.rng.random_range(-0.5f32..0.5)).sum();
        sum * 1.7
    }

    /// Any 64 bits.
    pub fn word(&mut self) -> u64 {
        self.rng.random()
    }

    /// Any number, and the edges of what there is more often than chance has it.
    pub fn wild(&mut self) -> u32 {
        const EDGES: [u32; 14] = [
            0,
            1,
            2,
            3,
            7,
            64,
            65_535,
            65_536,
            1 << 20,
            (1 << 30) - 1,
            1 << 30,
            i32::MAX as u32,
            1 << 31,
            u32::MAX,
        ];
        if self.chance(0.8) {
            self.pick(&EDGES)
        } else {
            self.rng.random()
        }
    }
}

/// What is drawn, so that the same number in two streams is two different draws.
#[derive(Clone, Copy, Debug)]
pub enum Stream {
    Block = 1,
    Case = 2,
}
