//! How busy a scheduler is, and what it has done.

use std::ops::Add;

/// How busy a scheduler is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Usage {
    /// The number of sequences that have a slot, and of those that wait for one.
    pub running: usize,
    pub waiting: usize,
    /// The number of blocks of the cache, and of those that sequences hold.
    pub blocks: usize,
    pub blocks_in_use: usize,
    /// What was done so far.
    pub done: Done,
}

/// What a scheduler has done so far.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Done {
    pub steps: u64,
    /// How often tokens were guessed, how many, and how many of them were right.
    pub drafts: u64,
    pub guesses: u64,
    pub right_guesses: u64,
}

impl Add for Done {
    type Output = Self;

    fn add(self, other: Self) -> Self {
        Self {
            steps: self.steps + other.steps,
            drafts: self.drafts + other.drafts,
            guesses: self.guesses + other.guesses,
            right_guesses: self.right_guesses + other.right_guesses,
        }
    }
}
