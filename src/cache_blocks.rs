//! The blocks of the KV cache: which sequences hold them, and which can be shared. Independent of the GPU:
//! the keys and values are in the backend's buffers, at the block numbers that this module assigns.
//!
//! Each block has [`BLOCK`] positions and a count of its holders. A block whose
//! contents other sequences may share is *named* by its tokens and by the named block before it; a sequence
//! that begins with the same tokens finds it by these. Blocks without holders keep their contents until they
//! are needed, the least recently used first. Then the host's memory may keep what is in them, of so many
//! blocks; when these are too many, the least recently used go first again.

use crate::{buffers::BLOCK, prompt::Features};
use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    sync::Arc,
};

/// The identity of a block's content. Names are never reused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Name(u64);

/// The content of a block, which is the key to find it by. All of it is compared, not only a hash.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Content {
    /// The name of the block before it; `None` at the beginning of a sequence.
    pub before: Option<Name>,
    pub tokens: Vec<u32>,
    /// The images that take the place of some of these tokens, and where each starts, relative to the block's
    /// first position.
    pub images: Vec<(isize, Features)>,
    /// The bits of the adapters' scales, in the first block of a sequence; the others are known by what is
    /// before them.
    pub adapters: Vec<u32>,
}

impl Content {
    /// A part of a text without images.
    fn text(before: Option<Name>, tokens: &[u32], scales: &[f32]) -> Self {
        let adapters = Self::adapters(before, scales);
        Self { before, tokens: tokens.to_vec(), images: Vec::new(), adapters }
    }

    /// The bits of the adapters' scales, as a block behind this one has them.
    pub fn adapters(before: Option<Name>, scales: &[f32]) -> Vec<u32> {
        if before.is_some() { Vec::new() } else { scales.iter().map(|scale| scale.to_bits()).collect() }
    }
}

/// Something that must be done with the contents of a block before the next step.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Move {
    /// Copy them to the host's memory, under this name.
    Keep { block: u32, name: Name },
    /// Copy what is kept under this name to the block; it is kept no longer.
    Return { name: Name, block: u32 },
    /// Keep them no longer.
    Drop { name: Name },
}

/// The contents that the host's memory keeps.
#[derive(Debug, Default)]
struct Kept {
    /// The most blocks.
    capacity: usize,
    by_content: HashMap<Arc<Content>, (Name, u64)>,
    /// The oldest first.
    by_age: BTreeMap<u64, Arc<Content>>,
}

impl Kept {
    fn add(&mut self, content: Arc<Content>, name: Name, clock: u64) {
        self.by_age.insert(clock, content.clone());
        self.by_content.insert(content, (name, clock));
    }

    fn remove(&mut self, content: &Content) -> Option<Name> {
        let (name, clock) = self.by_content.remove(content)?;
        self.by_age.remove(&clock);
        Some(name)
    }

    /// Removes the oldest content if there are too many.
    fn remove_excess(&mut self) -> Option<Name> {
        if self.by_content.len() <= self.capacity {
            return None;
        }
        let (_, content) = self.by_age.pop_first()?;
        self.by_content.remove(&content).map(|(name, _)| name)
    }
}

#[derive(Debug, Default)]
struct Block {
    holders: u32,
    named: Option<(Name, Arc<Content>)>,
    /// When the last holder released the block; 0 if its contents are not worth keeping.
    unused_since: u64,
}

/// A fixed number of blocks, shared by sequences.
#[derive(Debug)]
pub struct Blocks {
    blocks: Vec<Block>,
    by_content: HashMap<Arc<Content>, u32>,
    /// The blocks without holders, ordered by `unused_since`.
    unused: BTreeSet<(u64, u32)>,
    kept: Kept,
    moves: Vec<Move>,
    next_name: u64,
    clock: u64,
}

impl Blocks {
    pub fn new(count: u32) -> Self {
        Self {
            kept: Kept::default(),
            moves: Vec::new(),
            blocks: (0..count).map(|_| Block::default()).collect(),
            by_content: HashMap::new(),
            unused: (0..count).map(|block| (0, block)).collect(),
            next_name: 0,
            clock: 0,
        }
    }

    /// Lets the host's memory keep the contents of so many blocks.
    pub fn keep(&mut self, capacity: usize) {
        self.kept.capacity = capacity;
    }

    /// What must be done with the contents of blocks before the next step, in order.
    pub fn moves(&mut self) -> Vec<Move> {
        std::mem::take(&mut self.moves)
    }

    /// The number of blocks that can be taken.
    pub fn available(&self) -> usize {
        self.unused.len()
    }

    /// Takes a block without holders. Its old contents can no longer be found in it. `None` if every block
    /// has a holder.
    pub fn take(&mut self) -> Option<u32> {
        let (_, number) = self.unused.pop_first()?;
        let block = &mut self.blocks[number as usize];
        block.holders = 1;
        if let Some((name, content)) = block.named.take() {
            self.by_content.remove(&content);
            if self.kept.capacity > 0 {
                self.clock += 1;
                self.kept.add(content, name, self.clock);
                self.moves.push(Move::Keep { block: number, name });
                self.moves.extend(self.kept.remove_excess().map(|name| Move::Drop { name }));
            }
        }
        Some(number)
    }

    /// Finds the block with this content and adds a holder to it. If only the host's memory has the content,
    /// it returns to a block, unless every block has a holder.
    pub fn find(&mut self, content: &Content) -> Option<(u32, Name)> {
        let Some(number) = self.by_content.get(content).copied() else { return self.find_kept(content) };
        let block = &mut self.blocks[number as usize];
        if block.holders == 0 {
            self.unused.remove(&(block.unused_since, number));
        }
        block.holders += 1;
        let (name, _) = block.named.as_ref().expect("what is found has a name");
        Some((number, *name))
    }

    fn find_kept(&mut self, content: &Content) -> Option<(u32, Name)> {
        if self.unused.is_empty() {
            return None;
        }
        let name = self.kept.remove(content)?;
        let block = self.take()?;
        self.moves.push(Move::Return { name, block });
        self.register(block, name, content.clone());
        Some((block, name))
    }

    fn register(&mut self, number: u32, name: Name, content: Content) {
        let content = Arc::new(content);
        self.blocks[number as usize].named = Some((name, content.clone()));
        self.by_content.insert(content, number);
    }

    /// Registers the content of a held block, so that others can find it. If another block with the same
    /// content is registered already, it stays the one to be found. Returns the content's name in both cases.
    pub fn name(&mut self, number: u32, content: Content) -> Name {
        if let Some(known) = self.by_content.get(&content) {
            return self.blocks[*known as usize].named.as_ref().expect("what is found has a name").0;
        }
        let name = match self.kept.remove(&content) {
            // Blocks behind it are found by the name that it had.
            Some(name) => {
                self.moves.push(Move::Drop { name });
                name
            }
            None => {
                self.next_name += 1;
                Name(self.next_name - 1)
            }
        };
        self.register(number, name, content);
        name
    }

    /// Releases a sequence's blocks, given in the order of its positions. The last ones will be reused first,
    /// because a block can be found only as long as those before it can.
    pub fn release(&mut self, numbers: &[u32]) {
        for number in numbers.iter().rev() {
            let block = &mut self.blocks[*number as usize];
            block.holders -= 1;
            if block.holders == 0 {
                self.clock += 1;
                block.unused_since = if block.named.is_some() { self.clock } else { 0 };
                self.unused.insert((block.unused_since, *number));
            }
        }
    }

    /// Adds a holder to the blocks of a text, from its beginning as far as they are found. `scales`: those of
    /// the adapters that it was computed with.
    pub fn find_text(&mut self, tokens: &[u32], scales: &[f32]) -> Vec<u32> {
        let (mut found, mut before) = (Vec::new(), None);
        for tokens in tokens.chunks_exact(BLOCK as usize) {
            let Some((block, name)) = self.find(&Content::text(before, tokens, scales)) else { break };
            before = Some(name);
            found.push(block);
        }
        found
    }

    /// Adds a holder to the blocks of a text, from its beginning: those that are found, and blocks without
    /// holders in place of the others, as far as there are any. Tells of each whether it was found. The
    /// others bear the text's names, but not its contents yet.
    pub fn take_text(&mut self, tokens: &[u32], scales: &[f32]) -> Vec<(u32, bool)> {
        let (mut taken, mut before) = (Vec::new(), None);
        for tokens in tokens.chunks_exact(BLOCK as usize) {
            let content = Content::text(before, tokens, scales);
            let (block, name, was_found) = match self.find(&content) {
                Some((block, name)) => (block, name, true),
                None => match self.take() {
                    Some(block) => (block, self.name(block, content), false),
                    None => break,
                },
            };
            before = Some(name);
            taken.push((block, was_found));
        }
        taken
    }

    /// Makes the blocks of a text impossible to find, and returns how many there were. Their holders keep
    /// them.
    pub fn forget_text(&mut self, tokens: &[u32], scales: &[f32]) -> usize {
        let (mut forgotten, mut before) = (0, None);
        for tokens in tokens.chunks_exact(BLOCK as usize) {
            let content = Content::text(before, tokens, scales);
            before = match self.by_content.remove(&content) {
                Some(number) => {
                    let block = &mut self.blocks[number as usize];
                    if block.holders == 0 {
                        self.unused.remove(&(block.unused_since, number));
                        block.unused_since = 0;
                        self.unused.insert((0, number));
                    }
                    block.named.take().map(|(name, _)| name)
                }
                None => {
                    let kept = self.kept.remove(&content);
                    self.moves.extend(kept.map(|name| Move::Drop { name }));
                    kept
                }
            };
            if before.is_none() {
                break;
            }
            forgotten += 1;
        }
        forgotten
    }

    /// Discards the contents of all blocks, also those that the host's memory keeps.
    ///
    /// # Panics
    /// If a block has a holder.
    pub fn forget(&mut self) {
        assert_eq!(self.unused.len(), self.blocks.len(), "no block is held");
        let kept = Kept { capacity: self.kept.capacity, ..Kept::default() };
        *self = Self { next_name: self.next_name, kept, ..Self::new(self.blocks.len() as u32) };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn content(before: Option<Name>, token: u32) -> Content {
        Content { before, tokens: vec![token; 32], images: Vec::new(), adapters: Vec::new() }
    }

    #[test]
    fn a_block_is_found_by_what_it_holds_and_what_is_before_it() {
        let mut blocks = Blocks::new(4);
        let [a, b] = [blocks.take().expect("free"), blocks.take().expect("free")];
        let first = blocks.name(a, content(None, 1));
        let second = blocks.name(b, content(Some(first), 2));
        assert_eq!(blocks.find(&content(None, 1)), Some((a, first)));
        assert_eq!(blocks.find(&content(Some(first), 2)), Some((b, second)));
        assert_eq!(blocks.find(&content(None, 2)), None, "after another block");
        // Two blocks with the same content have one name.
        let c = blocks.take().expect("free");
        assert_eq!(blocks.name(c, content(None, 1)), first);
        assert_eq!(blocks.find(&content(None, 1)), Some((a, first)));
        blocks.release(&[a, b]);
        blocks.release(&[a, b]);
        blocks.release(&[a]);
        // A block without holders can still be found. Blocks without a name are reused first, then the least
        // recently used.
        assert_eq!(blocks.find(&content(None, 1)), Some((a, first)));
        blocks.release(&[a, c]);
        let taken: Vec<_> = (0..4).map(|_| blocks.take().expect("free")).collect();
        assert_eq!((taken[2..].to_vec(), blocks.take()), (vec![b, a], None));
        assert_eq!(blocks.find(&content(None, 1)), None, "it holds something else");
    }

    /// After each operation of a long random history, every block has exactly the holders that took it. At
    /// the end all blocks are free.
    #[test]
    fn no_block_is_owned_twice_and_all_come_back() {
        let mut blocks = Blocks::new(23);
        let mut held: Vec<Vec<u32>> = vec![Vec::new(); 5];
        let mut names: Vec<Option<Name>> = vec![None; 5];
        let mut state = 1u64;
        let mut random = |below: u64| {
            state = state.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
            (state >> 33) % below
        };
        for _ in 0..20_000 {
            let who = random(5) as usize;
            if random(6) == 0 {
                blocks.release(&std::mem::take(&mut held[who]));
                names[who] = None;
            } else {
                let content = content(names[who], random(3) as u32);
                let found = if random(2) == 0 { blocks.find(&content) } else { None };
                match found {
                    Some((block, name)) => {
                        held[who].push(block);
                        names[who] = Some(name);
                    }
                    None => {
                        let Some(block) = blocks.take() else { continue };
                        assert!(held.iter().flatten().all(|other| *other != block), "held by nobody else");
                        held[who].push(block);
                        names[who] = Some(blocks.name(block, content));
                    }
                }
            }
            for (number, block) in (0..).zip(&blocks.blocks) {
                let holders = held.iter().flatten().filter(|held| **held == number).count();
                assert_eq!(block.holders as usize, holders);
                assert_eq!(blocks.unused.contains(&(block.unused_since, number)), holders == 0);
            }
        }
        held.iter().for_each(|held| blocks.release(held));
        assert_eq!(blocks.available(), 23);
        blocks.forget();
        assert_eq!((blocks.available(), blocks.by_content.len()), (23, 0));
    }
}
