//! Blocks of the KV cache that were needed for something else, in the host's memory.

use crate::{
    backend::Backend,
    cache_blocks::{Move, Name},
    error::Result,
};
use std::collections::HashMap;

/// What such blocks hold, by their names.
#[derive(Debug, Default)]
pub struct KeptBlocks(HashMap<Name, Vec<u8>>);

impl KeptBlocks {
    /// Carries out moves between a backend's cache and this memory, in order: after the steps that were
    /// submitted, before the next one.
    ///
    /// # Errors
    /// If the device fails.
    pub async fn carry_out(&mut self, moves: Vec<Move>, backend: &mut dyn Backend) -> Result<()> {
        for made in moves {
            match made {
                Move::Keep { block, name } => drop(self.0.insert(name, backend.read_block(block).await?)),
                Move::Return { name, block } => {
                    let bytes = self.0.remove(&name).expect("what returns was kept");
                    backend.write_block(block, &bytes)?;
                }
                Move::Drop { name } => drop(self.0.remove(&name)),
            }
        }
        Ok(())
    }

    /// Forgets all of them.
    pub fn clear(&mut self) {
        self.0.clear();
    }
}
