//! From sequences to steps: which tokens run next, and through which plan. No GPU in it.
//!
//! What a request computes follows from the request alone, to the bit, whatever runs beside it: prompt tokens
//! always go through the prefill plan, even a single one, and generated ones through the decode plan, also
//! when they run again after the sequence was preempted. Kernels sum in an order that depends on neither the
//! company nor the chunk.

mod batch;
mod sequence;

pub use batch::{Batch, Event, Happened, Outcome, Part, Reads};
pub use sequence::{FinishReason, Goal, NewSequence, SequenceId};

use crate::{
    buffers::{BLOCK, Sizes},
    cache::Blocks,
    sampling::{NO_ID, Pick},
    step::{FEATURE, Row},
    workload::Phase,
};
use sequence::{Kind, Sequence};
use std::{collections::VecDeque, ops::Range};

/// A place among the sequences at work: it says which table and which sampled id are a sequence's own.
pub type Slot = u32;

/// The sequences: those at work and those that wait for a slot.
#[derive(Debug)]
pub struct Scheduler {
    sizes: Sizes,
    /// Whether what decoding wrote into the cache is found by others.
    share_decoded: bool,
    blocks: Blocks,
    /// By slot.
    running: Vec<Option<Sequence>>,
    /// In the order of arrival.
    waiting: VecDeque<Sequence>,
    events: Vec<Event>,
    next_id: u64,
    steps: u64,
    /// How many tokens are still to be decoded before the next chunk of a prompt.
    decodes_due: usize,
}

impl Scheduler {
    /// For plans of these sizes. `share_decoded`: sequences also find in the cache what decoding wrote, whose
    /// last bits differ from what they would compute themselves.
    pub fn new(sizes: Sizes, share_decoded: bool) -> Self {
        assert!(sizes.blocks * BLOCK >= sizes.context, "a cache for one whole context at least");
        Self {
            share_decoded,
            blocks: Blocks::new(sizes.blocks),
            running: (0..sizes.sequences).map(|_| None).collect(),
            waiting: VecDeque::new(),
            events: Vec::new(),
            next_id: 0,
            steps: 0,
            decodes_due: 0,
            sizes,
        }
    }

    /// Takes a sequence in; it runs once there is a slot and room in the cache for it.
    pub fn add(&mut self, new: NewSequence) -> SequenceId {
        assert!(!new.tokens.is_empty(), "a first token");
        assert!(new.tokens.len() <= self.sizes.context as usize, "a prompt within the context");
        let id = SequenceId(self.next_id);
        self.next_id += 1;
        let mut sequence = Sequence::new(id, new);
        sequence.limit(self.sizes.context as usize);
        self.waiting.push_back(sequence);
        id
    }

    /// Ends a sequence, wherever it is. What steps under way compute for it is ignored.
    pub fn cancel(&mut self, id: SequenceId) {
        self.waiting.retain(|sequence| sequence.id != id);
        self.events.retain(|event| event.sequence != id);
        if let Some(slot) = self.slot_of(id) {
            self.remove(slot);
        }
    }

    /// Puts a sequence back into the queue and gives its blocks to others, as happens where the cache is
    /// full.
    pub fn preempt(&mut self, id: SequenceId) {
        if let Some(slot) = self.slot_of(id) {
            self.put_back(slot);
        }
    }

    /// Ends all sequences and forgets what the cache holds: for a device that failed.
    pub fn clear(&mut self) {
        self.waiting.clear();
        self.events.clear();
        (0..self.running.len()).for_each(|slot| self.remove(slot));
        self.blocks.forget();
    }

    /// Whether a sequence is at work or waits.
    pub fn has(&self, id: SequenceId) -> bool {
        self.slot_of(id).is_some() || self.waiting.iter().any(|sequence| sequence.id == id)
    }

    /// Whether no sequence is at work nor waits.
    pub fn is_idle(&self) -> bool {
        self.waiting.is_empty() && self.running.iter().all(Option::is_none)
    }

    /// The next step; none where all that can run is under way.
    ///
    /// Chunks of prompts ride beside answers: between two chunks, each sequence that can decodes a token.
    pub fn schedule(&mut self) -> Option<Batch> {
        self.admit();
        let batch = match self.decodes_due {
            0 => self.prefill().or_else(|| self.decode()),
            _ => self.decode().or_else(|| self.prefill()),
        }?;
        self.steps += 1;
        match batch.phase {
            Phase::Prefill => {
                self.decodes_due = self.running.iter().flatten().filter(|s| s.can_decode()).count();
            }
            Phase::Decode => self.decodes_due = self.decodes_due.saturating_sub(batch.parts.len()),
        }
        Some(batch)
    }

    /// Takes in what came of a batch; batches come back in the order in which they were handed out.
    pub fn commit(&mut self, batch: &Batch, outcome: &Outcome) -> Vec<Event> {
        let mut first_output = 0;
        for part in &batch.parts {
            let outputs = first_output..first_output + part.outputs;
            first_output = outputs.end;
            self.commit_part(batch, part, outputs, outcome);
        }
        std::mem::take(&mut self.events)
    }

    fn commit_part(&mut self, batch: &Batch, part: &Part, outputs: Range<usize>, outcome: &Outcome) {
        // Whoever left, or was preempted meanwhile, has no more use for it.
        let of_part = |s: &&mut Sequence| s.id == part.sequence && s.epoch == part.epoch;
        let Some(sequence) = self.running[part.slot as usize].as_mut().filter(of_part) else { return };
        let mut happened = Vec::new();
        if batch.phase == Phase::Prefill {
            happened.push(Happened::Read { tokens: part.tokens.end, cached: sequence.cached });
        }
        let mut is_over = false;
        if part.outputs > 0 {
            match sequence.kind {
                Kind::Generate => {
                    let picked = outcome.picked[part.slot as usize];
                    sequence.in_flight -= 1;
                    if picked.id == NO_ID {
                        happened.push(Happened::NotNumbers);
                        is_over = true;
                    } else {
                        happened.push(Happened::Token(picked.id));
                        let reason = sequence.push(picked.id, picked.probability);
                        happened.extend(reason.map(Happened::Finished));
                        is_over = reason.is_some();
                    }
                }
                Kind::Score => {
                    happened.push(Happened::Scores(outcome.scores[outputs].to_vec()));
                    sequence.targets.drain(..part.outputs);
                    is_over = sequence.gave_outputs(part.tokens.end);
                }
                Kind::Predict => {
                    let width = outcome.logits.len() / batch.step.outputs.len();
                    let logits = &outcome.logits[outputs.start * width..outputs.end * width];
                    happened.push(Happened::Logits(logits.to_vec()));
                    is_over = sequence.gave_outputs(part.tokens.end);
                }
            }
        }
        if self.share_decoded {
            sequence.name_blocks(&mut self.blocks, true);
        }
        if is_over && !matches!(sequence.kind, Kind::Generate) {
            happened.push(Happened::Finished(FinishReason::Length));
        }
        let sequence = part.sequence;
        self.events.extend(happened.into_iter().map(|happened| Event { sequence, happened }));
        if is_over {
            self.remove(part.slot as usize);
        }
    }
    fn slot_of(&self, id: SequenceId) -> Option<usize> {
        self.running.iter().position(|running| running.as_ref().is_some_and(|sequence| sequence.id == id))
    }

    fn at(&mut self, slot: usize) -> &mut Sequence {
        self.running[slot].as_mut().expect("a sequence at work")
    }

    fn remove(&mut self, slot: usize) {
        if let Some(sequence) = self.running[slot].take() {
            self.blocks.release(&sequence.blocks);
        }
    }

    fn put_back(&mut self, slot: usize) {
        let Some(mut sequence) = self.running[slot].take() else { return };
        sequence.preempt(&mut self.blocks);
        self.events.push(Event { sequence: sequence.id, happened: Happened::Preempted });
        let before = self.waiting.iter().position(|other| other.id > sequence.id);
        self.waiting.insert(before.unwrap_or(self.waiting.len()), sequence);
    }

    /// Gives those that wait a slot, the first that came first, as long as the cache has room for all prompts
    /// at work.
    fn admit(&mut self) {
        while let (Some(next), Some(slot)) =
            (self.waiting.front(), self.running.iter().position(Option::is_none))
        {
            let at_work =
                self.running.iter().flatten().map(|sequence| sequence.blocks_missing(sequence.len()));
            let needed = at_work.sum::<usize>() + next.blocks_missing(next.len());
            if needed > self.blocks.available() {
                return;
            }
            self.running[slot] = self.waiting.pop_front();
        }
    }

    /// Makes room in the cache for a sequence's first so many tokens; where there is none, the last that came
    /// gives up its own. False where that is the sequence itself.
    fn make_room(&mut self, slot: usize, tokens: usize) -> bool {
        while self.at(slot).blocks_missing(tokens) > 0 {
            match self.blocks.take() {
                Some(block) => self.at(slot).blocks.push(block),
                None => {
                    let youngest = self.slots_by(|sequence| sequence.id).pop().expect("a sequence at work");
                    self.put_back(youngest);
                    if youngest == slot {
                        return false;
                    }
                }
            }
        }
        true
    }

    /// The slots of the sequences at work, in an order.
    fn slots_by<K: Ord>(&self, key: impl Fn(&Sequence) -> K) -> Vec<usize> {
        let running = self.running.iter().enumerate();
        let mut slots: Vec<_> = running.filter_map(|(slot, s)| Some((key(s.as_ref()?), slot))).collect();
        slots.sort();
        slots.into_iter().map(|(_, slot)| slot).collect()
    }

    /// The next chunk of the prompts that are to be read.
    fn prefill(&mut self) -> Option<Batch> {
        for sequence in self.running.iter_mut().flatten() {
            sequence.find(&mut self.blocks, self.share_decoded);
        }
        let shares = self.prefill_shares();
        let mut batch = Batch::new(Phase::Prefill);
        let mut outputs = self.sizes.outputs as usize;
        // The oldest first: what makes room for a sequence is never what is in the batch already.
        for slot in self.slots_by(|sequence| sequence.id) {
            // Another one may have computed it in this very batch: its blocks are written before anybody
            // reads them.
            let Some(sequence) = &mut self.running[slot] else { continue };
            sequence.find(&mut self.blocks, self.share_decoded);
            // Each wanted output takes one of the step's; tokens before the first take none.
            let before_outputs = sequence.outputs_from.saturating_sub(sequence.computed);
            let count = shares[slot].min(sequence.prompt_left()).min(before_outputs + outputs);
            outputs -= self.take(&mut batch, slot, count);
        }
        self.filled(batch)
    }

    /// How many tokens of each slot's prompt run next: half a chunk, at least, is the oldest sequence's, and
    /// the rest is given to those that have the least left to read. So a short prompt does not wait for a
    /// long one, nor a long one for many short ones.
    fn prefill_shares(&self) -> Vec<usize> {
        let mut room = self.sizes.rows[Phase::Prefill as usize] as usize;
        let mut shares = vec![0; self.running.len()];
        let left = |slot: usize| self.running[slot].as_ref().map_or(0, Sequence::prompt_left);
        let oldest = self.slots_by(|sequence| sequence.id).into_iter().find(|slot| left(*slot) > 0);
        if let Some(oldest) = oldest {
            shares[oldest] = left(oldest).min(room.div_ceil(2));
            room -= shares[oldest];
        }
        for slot in self.slots_by(|sequence| (sequence.prompt_left(), sequence.id)) {
            let more = (left(slot) - shares[slot]).min(room);
            shares[slot] += more;
            room -= more;
        }
        shares
    }

    /// The next token of the sequences whose last turn is longest ago.
    fn decode(&mut self) -> Option<Batch> {
        let mut room = self.sizes.rows[Phase::Decode as usize].min(self.sizes.outputs) as usize;
        let mut chosen = Vec::new();
        for slot in self.slots_by(|sequence| (sequence.last_step, sequence.id)) {
            let sequence = self.at(slot);
            if room > 0 && sequence.can_decode() {
                // One; several where a sequence that was preempted computes again what it has.
                let count = (sequence.len() - sequence.computed).min(room);
                room -= count;
                chosen.push((sequence.id, slot, count));
            }
        }
        chosen.sort();
        let mut batch = Batch::new(Phase::Decode);
        for (_, slot, count) in chosen {
            if self.running[slot].is_some() {
                self.take(&mut batch, slot, count);
            }
        }
        self.filled(batch)
    }

    /// Puts a sequence's next so many tokens into a batch, where there is room for them in the cache; how
    /// many outputs they have.
    fn take(&mut self, batch: &mut Batch, slot: usize, count: usize) -> usize {
        let start = self.at(slot).computed;
        if count == 0 || !self.make_room(slot, start + count) {
            return 0;
        }
        let (step, now) = (&mut batch.step, self.steps + 1);
        let sequence = self.running[slot].as_mut().expect("a sequence at work");
        let mut outputs = 0;
        for index in start..start + count {
            let row = step.rows.len();
            if sequence.wants(index) {
                step.outputs.push(row as u32);
                batch.targets.push(sequence.target(index));
                outputs += 1;
            }
            let mut token = sequence.token(index);
            if let Some((features, part)) = sequence.image_at(index) {
                token = FEATURE;
                batch.images.push((row, features.clone(), part));
            }
            step.rows.push(Row { token, position: index as u32, sequence: slot as u32 });
        }
        (sequence.computed, sequence.last_step) = (start + count, now);
        if outputs > 0 {
            match sequence.kind {
                Kind::Generate => sequence.in_flight += 1,
                Kind::Score => batch.reads.scores = true,
                Kind::Predict => batch.reads.logits = true,
            }
        }
        if batch.phase == Phase::Prefill {
            sequence.name_blocks(&mut self.blocks, false);
        }
        let tokens = start..start + count;
        batch.parts.push(Part {
            sequence: sequence.id,
            epoch: sequence.epoch,
            slot: slot as u32,
            tokens,
            outputs,
        });
        outputs
    }

    /// What all steps say, where there is one at all.
    fn filled(&self, mut batch: Batch) -> Option<Batch> {
        if batch.step.rows.is_empty() {
            return None;
        }
        let step = &mut batch.step;
        let blocks = |sequence: &Option<Sequence>| sequence.as_ref().map_or(Vec::new(), |s| s.blocks.clone());
        step.tables = self.running.iter().map(blocks).collect();
        step.picks = vec![Pick::GREEDY; self.running.len()];
        for part in batch.parts.iter().filter(|part| part.outputs > 0) {
            let sequence = self.running[part.slot as usize].as_ref().expect("a sequence at work");
            step.picks[part.slot as usize] = sequence.sampler.pick(&sequence.tokens);
        }
        if batch.reads.scores {
            // Those that ask for none are given any.
            step.targets = batch.targets.iter().map(|target| target.unwrap_or(0)).collect();
        }
        Some(batch)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        sampling::{Penalties, Picked, Sampling},
        step::SAMPLED,
    };

    fn scheduler(rows: [u32; 2], sequences: u32, context: u32, blocks: u32) -> Scheduler {
        Scheduler::new(Sizes { rows, outputs: rows[1], sequences, context, blocks }, false)
    }

    fn generate(tokens: Range<u32>, max_tokens: usize) -> NewSequence {
        let goal = Goal::Generate { sampling: Sampling::GREEDY, max_tokens, ends: Vec::new() };
        NewSequence { tokens: tokens.collect(), images: Vec::new(), goal }
    }

    /// What a device that always draws the same token makes of it.
    fn outcome(scheduler: &Scheduler, id: u32) -> Outcome {
        let picked = vec![Picked { id, probability: 1.0 }; scheduler.running.len()];
        Outcome { picked, ..Outcome::default() }
    }

    /// Every token of every prompt runs once, in order, within the limits; the wanted outputs come out.
    #[test]
    fn prompts_run_in_chunks_and_only_wanted_outputs_come_out() {
        let mut scheduler = scheduler([10, 4], 3, 96, 12);
        let prompts = [0..27, 100..104, 200..233];
        let from = [26, 0, 30];
        let mut ids = Vec::new();
        for (prompt, from) in prompts.iter().zip(from) {
            let goal = Goal::Predict { from };
            ids.push(scheduler.add(NewSequence { goal, ..generate(prompt.clone(), 1) }));
        }
        let (mut seen, mut outputs) = (vec![Vec::new(); 3], vec![Vec::new(); 3]);
        while let Some(batch) = scheduler.schedule() {
            assert!(batch.phase == Phase::Prefill && batch.step.rows.len() <= 10 && !batch.reads.scores);
            for row in &batch.step.rows {
                assert_eq!(row.position as usize, seen[row.sequence as usize].len());
                seen[row.sequence as usize].push(row.token);
            }
            let logits = batch.step.outputs.iter().map(|row| batch.step.rows[*row as usize].token as f32);
            let outcome = Outcome { logits: logits.collect(), ..outcome(&scheduler, 0) };
            assert_eq!(batch.reads.allow_more(), outcome.logits.is_empty());
            assert!(outcome.logits.len() <= 4);
            for event in scheduler.commit(&batch, &outcome) {
                let slot = ids.iter().position(|id| *id == event.sequence).expect("one of them");
                match event.happened {
                    Happened::Logits(logits) => outputs[slot].extend(logits),
                    Happened::Finished(_) => {
                        assert_eq!(outputs[slot].len(), prompts[slot].len() - from[slot]);
                    }
                    _ => (),
                }
            }
        }
        assert_eq!(seen, prompts.clone().map(Vec::from_iter));
        let expected = prompts.iter().zip(from).map(|(prompt, from)| prompt.clone().skip(from));
        let expected: Vec<Vec<f32>> = expected.map(|ids| ids.map(|id| id as f32).collect()).collect();
        assert_eq!(outputs, expected);
        assert!(scheduler.is_idle());
    }

    /// A short prompt is read within two chunks of a long one, which meanwhile goes on; between chunks, all
    /// answers do.
    #[test]
    fn a_long_prompt_stops_nobody() {
        let mut scheduler = scheduler([128, 8], 32, 8192, 512);
        let answers: Vec<_> = (0..20).map(|i| scheduler.add(generate(i..i + 3, 1000))).collect();
        let step = |scheduler: &mut Scheduler| {
            let batch = scheduler.schedule().expect("work");
            let outcome = outcome(scheduler, 7);
            (scheduler.commit(&batch, &outcome), batch)
        };
        (0..10).for_each(|_| drop(step(&mut scheduler)));
        let long = scheduler.add(generate(1000..5000, 1));
        while step(&mut scheduler).1.parts[0].sequence != long {}
        let short = scheduler.add(generate(6000..6100, 1));
        let (mut chunks, mut read, mut told) = (0, 0, std::collections::HashMap::new());
        loop {
            let (events, batch) = step(&mut scheduler);
            chunks += usize::from(batch.phase == Phase::Prefill);
            for Event { sequence, happened } in events {
                match happened {
                    Happened::Token(_) => *told.entry(sequence).or_insert(0) += 1,
                    Happened::Read { tokens, .. } if sequence == long => read = tokens,
                    _ => (),
                }
            }
            if told.contains_key(&short) {
                break;
            }
        }
        assert!(chunks <= 2, "{chunks} chunks");
        assert!((64..4000).contains(&read), "the long one went on: {read}");
        // Each of the twenty, although eight go at once.
        let before = told.clone();
        (0..8).for_each(|_| {
            step(&mut scheduler).0.into_iter().for_each(|event| {
                if let Happened::Token(_) = event.happened {
                    *told.entry(event.sequence).or_insert(0) += 1;
                }
            });
        });
        for id in &answers {
            assert!(told[id] > before.get(id).copied().unwrap_or(0), "{id:?} starves");
        }
    }

    /// Steps run ahead of what the host knows, but not where the next token depends on the last.
    #[test]
    fn steps_run_ahead_unless_a_sampler_looks_back() {
        let mut scheduler = scheduler([10, 4], 2, 96, 6);
        let penalties = Penalties { repetition: 1.5, ..Penalties::NONE };
        let goal = Goal::Generate {
            sampling: Sampling { penalties, ..Sampling::GREEDY },
            max_tokens: 5,
            ends: vec![9],
        };
        let free = scheduler.add(generate(5..7, 3));
        let bound = scheduler.add(NewSequence { goal, ..generate(5..7, 1) });
        let batches: Vec<_> = std::iter::from_fn(|| scheduler.schedule()).collect();
        let rows: Vec<_> = batches.iter().map(|batch| &batch.step.rows).collect();
        assert_eq!(rows.iter().map(|rows| rows.len()).collect::<Vec<_>>(), [4, 1, 1]);
        assert_eq!(rows[1][0], Row { token: SAMPLED, position: 2, sequence: 0 });
        assert_eq!(rows[2][0], Row { token: SAMPLED, position: 3, sequence: 0 });
        let outcome = outcome(&scheduler, 8);
        let mut events: Vec<_> = batches.iter().flat_map(|batch| scheduler.commit(batch, &outcome)).collect();
        assert!(
            events.contains(&Event { sequence: free, happened: Happened::Finished(FinishReason::Length) })
        );
        let batch = scheduler.schedule().expect("the one that waited");
        assert_eq!(batch.step.rows, [Row { token: 8, position: 2, sequence: 1 }]);
        assert_eq!(batch.step.picks[1].adjusted.len(), 3, "5, 6 and 8 were there");
        let ended = Outcome { picked: vec![Picked { id: 9, probability: 1.0 }; 2], ..Outcome::default() };
        events = scheduler.commit(&batch, &ended);
        assert_eq!(events[1], Event { sequence: bound, happened: Happened::Finished(FinishReason::Stop) });
        assert!(scheduler.is_idle() && scheduler.blocks.available() == 6);
    }

    /// What is under way for one that left or was put back is nobody's, also where another has its slot.
    #[test]
    fn what_is_in_flight_for_those_who_left_is_ignored() {
        let mut scheduler = scheduler([10, 4], 1, 64, 2);
        let gone = scheduler.add(generate(0..4, 5));
        let batch = scheduler.schedule().expect("a prompt");
        scheduler.cancel(gone);
        let other = scheduler.add(generate(10..14, 5));
        let next = scheduler.schedule().expect("the other's prompt");
        let outcome = outcome(&scheduler, 3);
        assert_eq!(scheduler.commit(&batch, &outcome), []);
        scheduler.preempt(other);
        let again = scheduler.schedule().expect("once more");
        let events = scheduler.commit(&next, &outcome);
        assert_eq!(events, [Event { sequence: other, happened: Happened::Preempted }]);
        let events = scheduler.commit(&again, &outcome);
        assert_eq!(events[1], Event { sequence: other, happened: Happened::Token(3) });
        scheduler.clear();
        assert!(scheduler.is_idle() && !scheduler.has(other));
    }

    /// Where the cache is full, the last that came gives way, and goes on when there is room.
    #[test]
    fn the_last_that_came_gives_way() {
        let mut scheduler = scheduler([64, 8], 2, 96, 4);
        let [first, second] = [0, 500].map(|start| scheduler.add(generate(start..start + 30, 60)));
        let mut order = Vec::new();
        let mut tokens = [0, 0];
        while let Some(batch) = scheduler.schedule() {
            let outcome = outcome(&scheduler, 3);
            for Event { sequence, happened } in scheduler.commit(&batch, &outcome) {
                match happened {
                    Happened::Token(_) => tokens[usize::from(sequence == second)] += 1,
                    Happened::Preempted => order.push((sequence, "preempted")),
                    Happened::Finished(_) => order.push((sequence, "finished")),
                    _ => (),
                }
            }
        }
        assert_eq!(order, [(second, "preempted"), (first, "finished"), (second, "finished")]);
        assert_eq!((tokens, scheduler.blocks.available()), ([60, 60], 4));
    }
}
