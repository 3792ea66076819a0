//! The cache's blocks: which are free, and which hold what. No GPU in it: buffers lie with the backend, and a
//! table of block numbers says for each sequence where its positions are.

use crate::step::BLOCK;

/// A fixed number of blocks of [`BLOCK`] positions, shared by sequences.
#[derive(Debug)]
pub struct Blocks {
    free: Vec<u32>,
    /// By sequence slot.
    tables: Vec<Vec<u32>>,
}

impl Blocks {
    pub fn new(blocks: u32, sequences: u32) -> Self {
        Self { free: (0..blocks).rev().collect(), tables: vec![Vec::new(); sequences as usize] }
    }

    pub fn free(&self) -> usize {
        self.free.len()
    }

    pub fn tables(&self) -> &[Vec<u32>] {
        &self.tables
    }

    /// Makes room for so many positions of a sequence; false, and nothing taken, where there is not enough.
    pub fn reserve(&mut self, sequence: u32, positions: u32) -> bool {
        let table = &mut self.tables[sequence as usize];
        let more = (positions.div_ceil(BLOCK) as usize).saturating_sub(table.len());
        if more > self.free.len() {
            return false;
        }
        table.extend(self.free.drain(self.free.len() - more..).rev());
        true
    }

    /// Gives back all that a sequence holds.
    pub fn release(&mut self, sequence: u32) {
        self.free.append(&mut self.tables[sequence as usize]);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A long random history of reserving and releasing: no block is owned twice, none is lost.
    #[test]
    fn no_block_is_owned_twice_and_all_come_back() {
        let (blocks, sequences) = (23, 5);
        let mut cache = Blocks::new(blocks, sequences);
        let mut state = 1u64;
        let mut random = |below: u64| {
            state = state.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
            (state >> 33) % below
        };
        for _ in 0..10_000 {
            let sequence = random(u64::from(sequences)) as u32;
            if random(3) == 0 {
                cache.release(sequence);
                assert!(cache.tables()[sequence as usize].is_empty());
            } else {
                let positions = random(400) as u32;
                let before = (cache.free(), cache.tables().to_vec());
                if cache.reserve(sequence, positions) {
                    assert!(cache.tables()[sequence as usize].len() as u32 * BLOCK >= positions);
                } else {
                    assert_eq!((cache.free(), cache.tables().to_vec()), before, "a refusal takes nothing");
                }
            }
            let mut all: Vec<u32> = cache.tables().iter().flatten().chain(&cache.free).copied().collect();
            all.sort_unstable();
            assert_eq!(all, (0..blocks).collect::<Vec<_>>());
        }
    }
}
