//! The prompt of each slot, which `/slots/{id}` saves and forgets.

use crate::engine::OwnedPrompt;
use std::sync::{Arc, Mutex};

/// The prompt of each slot: its tokens before the first image.
pub struct SlotPrompts(Mutex<Vec<Arc<OwnedPrompt>>>);

impl SlotPrompts {
    pub fn new(slots: usize) -> Self {
        Self(Mutex::new(vec![Arc::default(); slots]))
    }

    pub fn set(&self, slot: u32, prompt: Arc<OwnedPrompt>) {
        self.0.lock().expect("no thread fails while it holds the lock")[slot as usize] = prompt;
    }

    pub fn get(&self, slot: u32) -> Arc<OwnedPrompt> {
        self.0.lock().expect("no thread fails while it holds the lock")[slot as usize].clone()
    }
}
