//! From sequences to steps: which tokens run next, and through which plan. No GPU in it.
//!
//! Prompt tokens always go through the prefill plan, even a single one, and generated ones through the decode
//! plan: which kernels compute a token follows from its own request, whatever runs beside it.

use crate::{
    cache::Blocks,
    plan::{Shape, Sizes},
    sampling::Sampling,
    step::{Pick, Row, Step},
};
use std::ops::Range;

/// A sequence's slot.
pub type Slot = u32;

#[derive(Debug)]
struct Sequence {
    /// [`crate::step::SAMPLED`] where the device picked the token and holds it itself.
    tokens: Vec<u32>,
    /// How many of the tokens are the prompt's.
    prompt: usize,
    /// How many are in the cache, or will be once the steps handed out have run.
    done: usize,
    /// From which prompt token on the logits are wanted.
    outputs_from: usize,
    sampling: Sampling,
    /// By how many bits the next token may surprise, where mirostat says so.
    surprise: f32,
}

impl Sequence {
    fn new(tokens: Vec<u32>, done: usize, outputs_from: usize, sampling: Sampling) -> Self {
        let surprise = sampling.mirostat.map_or(0.0, |mirostat| mirostat.first());
        Self { prompt: tokens.len(), tokens, done, outputs_from, sampling, surprise }
    }

    /// How the token is picked that follows once the steps handed out have run.
    fn pick(&self) -> Pick {
        Pick {
            draw: self.sampling.draw(self.surprise),
            penalties: self.sampling.penalties,
            adjusted: self.sampling.adjusted(&self.tokens[..self.done]),
        }
    }
}

/// What a backend is to run next, and whose logits come out of it.
#[derive(Debug)]
pub struct Work {
    pub shape: Shape,
    pub step: Step,
    /// For each output: the sequence, and the index of the token whose logits it is (it predicts the next).
    pub outputs: Vec<(Slot, usize)>,
}

/// The sequences at work.
#[derive(Debug)]
pub struct Scheduler {
    sizes: Sizes,
    blocks: Blocks,
    sequences: Vec<Option<Sequence>>,
}

impl Scheduler {
    pub fn new(sizes: Sizes) -> Self {
        Self {
            blocks: Blocks::new(sizes.blocks, sizes.sequences),
            sequences: (0..sizes.sequences).map(|_| None).collect(),
            sizes,
        }
    }

    /// Takes in a prompt of which the logits from token `outputs_from` on are wanted, with room for `positions`
    /// in all. None where there is no free slot or not enough cache.
    pub fn add(
        &mut self,
        prompt: Vec<u32>,
        outputs_from: usize,
        positions: u32,
        sampling: Sampling,
    ) -> Option<Slot> {
        assert!(outputs_from < prompt.len(), "the last token's logits are always wanted");
        assert!(positions <= self.sizes.context, "a sequence within the context");
        let slot = self.sequences.iter().position(Option::is_none)? as Slot;
        if !self.blocks.reserve(slot, positions.max(prompt.len() as u32)) {
            return None;
        }
        self.sequences[slot as usize] = Some(Sequence::new(prompt, 0, outputs_from, sampling));
        Some(slot)
    }

    /// Gives a sequence another prompt, whose first `done` tokens are those that the cache holds of it already, at most.
    /// False, and nothing changed, where there is not enough cache.
    pub fn replace(
        &mut self,
        slot: Slot,
        prompt: Vec<u32>,
        done: usize,
        positions: u32,
        sampling: Sampling,
    ) -> bool {
        let sequence = self.sequences[slot as usize].as_mut().expect("a sequence at work");
        assert!(done < prompt.len() && done <= sequence.done, "what is in the cache, and the last token not");
        if !self.blocks.reserve(slot, positions.max(prompt.len() as u32)) {
            return false;
        }
        let outputs_from = prompt.len() - 1;
        *sequence = Sequence::new(prompt, done, outputs_from, sampling);
        true
    }

    /// How many of a sequence's tokens are in the cache.
    pub fn done(&self, slot: Slot) -> usize {
        self.sequences[slot as usize].as_ref().expect("a sequence at work").done
    }

    /// Appends the token that follows: its id, or [`crate::step::SAMPLED`] where the device picked it and holds it itself, before
    /// anybody else may know it.
    pub fn push(&mut self, slot: Slot, token: u32) {
        let sequence = self.sequences[slot as usize].as_mut().expect("a sequence at work");
        assert_eq!(sequence.done, sequence.tokens.len(), "the device holds only the id that it picked last");
        sequence.tokens.push(token);
        let room = self.blocks.reserve(slot, sequence.tokens.len() as u32);
        assert!(room, "room for all positions was reserved");
    }

    /// Takes note of how probable the token was that was drawn last.
    pub fn learn(&mut self, slot: Slot, probability: f32) {
        let sequence = self.sequences[slot as usize].as_mut().expect("a sequence at work");
        if let Some(mirostat) = sequence.sampling.mirostat {
            sequence.surprise = mirostat.next(sequence.surprise, probability);
        }
    }

    pub fn remove(&mut self, slot: Slot) {
        self.sequences[slot as usize] = None;
        self.blocks.release(slot);
    }

    /// The next step, prompts first; none where every token is in the cache.
    pub fn next_work(&mut self) -> Option<Work> {
        self.prefill().or_else(|| self.decode())
    }

    fn prefill(&mut self) -> Option<Work> {
        let mut work = self.empty(Shape::Prefill);
        for (slot, sequence) in (0..).zip(&mut self.sequences) {
            let Some(sequence) = sequence else { continue };
            let room = self.sizes.rows[Shape::Prefill as usize] as usize - work.step.rows.len();
            let outputs = self.sizes.outputs as usize - work.outputs.len();
            // Rows up to the first wanted output are free of it; from there on each takes an output.
            let most = sequence.outputs_from.saturating_sub(sequence.done) + outputs;
            let end = sequence.prompt.min(sequence.done + room.min(most));
            let taken = sequence.done.min(end)..end;
            let outputs_from = sequence.outputs_from;
            work.take(slot, sequence, taken, |i| i >= outputs_from);
        }
        self.filled(work)
    }

    fn decode(&mut self) -> Option<Work> {
        let mut work = self.empty(Shape::Decode);
        for (slot, sequence) in (0..).zip(&mut self.sequences) {
            let Some(sequence) = sequence else { continue };
            let most = self.sizes.rows[Shape::Decode as usize].min(self.sizes.outputs) as usize;
            let end = sequence.tokens.len().min(sequence.done + most - work.step.rows.len());
            work.take(slot, sequence, sequence.done..end, |_| true);
        }
        self.filled(work)
    }

    /// What all steps say, where there is one at all.
    fn filled(&self, mut work: Work) -> Option<Work> {
        if work.step.rows.is_empty() {
            return None;
        }
        work.step.tables = self.blocks.tables().to_vec();
        let pick = |s: &Option<Sequence>| s.as_ref().map_or(Pick::GREEDY, Sequence::pick);
        work.step.picks = self.sequences.iter().map(pick).collect();
        Some(work)
    }

    fn empty(&self, shape: Shape) -> Work {
        Work { shape, step: Step::default(), outputs: Vec::new() }
    }
}

impl Work {
    fn take(
        &mut self,
        slot: Slot,
        sequence: &mut Sequence,
        tokens: Range<usize>,
        wanted: impl Fn(usize) -> bool,
    ) {
        for i in tokens.clone() {
            if wanted(i) {
                self.step.outputs.push(self.step.rows.len() as u32);
                self.outputs.push((slot, i));
            }
            self.step.rows.push(Row { token: sequence.tokens[i], position: i as u32, sequence: slot });
        }
        sequence.done = sequence.done.max(tokens.end);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::step::SAMPLED;

    fn sizes() -> Sizes {
        Sizes { rows: [10, 4], outputs: 3, sequences: 3, context: 100, blocks: 12 }
    }

    /// Every prompt token runs once, in order, through prefill, within the limits; the wanted logits come out.
    #[test]
    fn prompts_run_in_chunks_and_only_wanted_logits_come_out() {
        let mut scheduler = Scheduler::new(sizes());
        let prompts = [(0..27).collect::<Vec<u32>>(), (100..104).collect(), (200..233).collect()];
        let from = [26, 0, 30];
        for (prompt, from) in prompts.iter().zip(from) {
            scheduler.add(prompt.clone(), from, 50, Sampling::GREEDY).expect("room");
        }
        assert_eq!(scheduler.add(vec![1], 0, 1, Sampling::GREEDY), None, "no fourth slot");
        let (mut seen, mut outputs) = (vec![Vec::new(); 3], vec![Vec::new(); 3]);
        while let Some(work) = scheduler.next_work() {
            assert_eq!(work.shape, Shape::Prefill);
            assert!(work.step.rows.len() <= 10 && work.outputs.len() <= 3);
            for (output, (slot, index)) in work.step.outputs.iter().zip(&work.outputs) {
                assert_eq!(work.step.rows[*output as usize].position as usize, *index);
                outputs[*slot as usize].push(*index);
            }
            for row in &work.step.rows {
                assert_eq!(row.position as usize, seen[row.sequence as usize].len());
                seen[row.sequence as usize].push(row.token);
            }
        }
        assert_eq!(seen, prompts);
        assert_eq!(outputs, [vec![26], (0..4).collect(), (30..33).collect()]);
    }

    #[test]
    fn what_the_device_sampled_is_named_so_and_decoded() {
        let mut scheduler = Scheduler::new(sizes());
        let slot = scheduler.add(vec![5, 6], 1, 10, Sampling::GREEDY).expect("room");
        assert_eq!(scheduler.next_work().expect("the prompt").shape, Shape::Prefill);
        assert!(scheduler.next_work().is_none());
        scheduler.push(slot, SAMPLED);
        let work = scheduler.next_work().expect("the token");
        assert_eq!((work.shape, work.step.rows[0].token), (Shape::Decode, SAMPLED));
        scheduler.push(slot, 8);
        assert_eq!(
            scheduler.next_work().expect("the token").step.rows[0],
            Row { token: 8, position: 3, sequence: slot }
        );
        scheduler.remove(slot);
        assert!(scheduler.next_work().is_none());
        assert_eq!(scheduler.blocks.free(), 12);
    }

    /// Another prompt that begins as the cache does: only the rest of it runs, where the blocks have it.
    #[test]
    fn a_prompt_goes_on_where_the_cache_ends() {
        let mut scheduler = Scheduler::new(sizes());
        let slot = scheduler.add((0..9).collect(), 8, 40, Sampling::GREEDY).expect("room");
        scheduler.next_work().expect("the prompt");
        assert_eq!(scheduler.done(slot), 9);
        let before = scheduler.blocks.tables()[slot as usize].clone();
        assert!(scheduler.replace(slot, vec![0, 1, 2, 70, 71], 3, 90, Sampling::GREEDY));
        let work = scheduler.next_work().expect("the rest");
        let rows: Vec<_> = work.step.rows.iter().map(|row| (row.position, row.token)).collect();
        assert_eq!((work.shape, rows), (Shape::Prefill, vec![(3, 70), (4, 71)]));
        assert_eq!(work.outputs, [(slot, 4)]);
        assert_eq!(scheduler.blocks.tables()[slot as usize][..2], before);
        assert!(!scheduler.replace(slot, vec![0, 1, 2, 5], 3, 500, Sampling::GREEDY), "more than there is");
        assert_eq!(scheduler.done(slot), 5);
    }
}
