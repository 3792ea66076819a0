//! What the scheduler does without a device: chunks, fairness, steps in flight, preemption, sharing.

use super::*;
use crate::{
    prompt::{Features, Placed},
    sampling::{Penalties, Picked, Sampling},
    step::SAMPLED,
};

fn scheduler(rows: [u32; 2], sequences: u32, context: u32, blocks: u32) -> Scheduler {
    Scheduler::new(
        Sizes { rows, outputs: rows[1], sequences, guesses: 0, adapters: 0, context, blocks },
        false,
    )
}

fn generate(tokens: Range<u32>, max_tokens: usize) -> NewSequence {
    let goal = Goal::generate(Sampling::GREEDY, max_tokens);
    NewSequence { tokens: tokens.collect(), images: Vec::new(), adapters: Vec::new(), goal }
}

/// The results of a device that samples the token `id` for every sequence.
fn outcome(scheduler: &Scheduler, id: u32) -> Outcome {
    let picked = vec![Picked { id, probability: 1.0 }; scheduler.running.len()];
    Outcome { picked, ..Outcome::default() }
}

/// Every prompt token runs once, in order, within the limits of a step. Exactly the wanted outputs come
/// out.
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

/// A short prompt is read within two chunks although a long one came first. Meanwhile the long prompt
/// advances, and so do all answers.
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
    // In eight more steps each of the twenty gets a token, although a step decodes at most eight.
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

/// Steps are scheduled before the host knows the tokens of earlier ones, unless sampling depends on
/// these.
#[test]
fn steps_run_ahead_unless_a_sampler_looks_back() {
    let mut scheduler = scheduler([10, 4], 2, 96, 6);
    let penalties = Penalties { repetition: 1.5, ..Penalties::NONE };
    let sampling = Sampling { penalties, ..Sampling::GREEDY };
    let goal = Goal::Generate { sampling, max_tokens: 5, ends: vec![9], logprobs: None, keep: None };
    let free = scheduler.add(generate(5..7, 3));
    let bound = scheduler.add(NewSequence { goal, ..generate(5..7, 1) });
    let batches: Vec<_> = std::iter::from_fn(|| scheduler.schedule()).collect();
    let rows: Vec<_> = batches.iter().map(|batch| &batch.step.rows).collect();
    assert_eq!(rows.iter().map(|rows| rows.len()).collect::<Vec<_>>(), [4, 1, 1]);
    assert_eq!(rows[1][0], Row { token: SAMPLED, position: 2, sequence: 0 });
    assert_eq!(rows[2][0], Row { token: SAMPLED, position: 3, sequence: 0 });
    let outcome = outcome(&scheduler, 8);
    let mut events: Vec<_> = batches.iter().flat_map(|batch| scheduler.commit(batch, &outcome)).collect();
    assert!(events.contains(&Event { sequence: free, happened: Happened::Finished(FinishReason::Length) }));
    let batch = scheduler.schedule().expect("the one that waited");
    assert_eq!(batch.step.rows, [Row { token: 8, position: 2, sequence: 1 }]);
    assert_eq!(batch.step.picks[1].adjusted.len(), 3, "5, 6 and 8 were there");
    let ended = Outcome { picked: vec![Picked { id: 9, probability: 1.0 }; 2], ..Outcome::default() };
    events = scheduler.commit(&batch, &ended);
    assert_eq!(events[1], Event { sequence: bound, happened: Happened::Finished(FinishReason::Stop) });
    assert!(scheduler.is_idle() && scheduler.blocks.available() == 6);
}

/// Results in flight for a sequence that was cancelled or preempted are ignored, even if another sequence
/// now has its slot.
#[test]
fn what_is_in_flight_for_those_who_left_is_ignored() {
    let mut scheduler = scheduler([10, 4], 1, 64, 2);
    let gone = scheduler.add(generate(0..4, 5));
    let batch = scheduler.schedule().expect("a prompt");
    scheduler.cancel(gone);
    let other = scheduler.add(generate(10..14, 5));
    let next = scheduler.schedule().expect("the other's prompt");
    let outcome = outcome(&scheduler, 3);
    let started = Event { sequence: other, happened: Happened::Started { slot: 0, cached: 0 } };
    assert_eq!(scheduler.commit(&batch, &outcome), std::slice::from_ref(&started));
    scheduler.preempt(other);
    let again = scheduler.schedule().expect("once more");
    let events = scheduler.commit(&next, &outcome);
    assert_eq!(events, [Event { sequence: other, happened: Happened::Preempted }, started]);
    let events = scheduler.commit(&again, &outcome);
    assert_eq!(events[1], Event { sequence: other, happened: Happened::Token(3) });
    scheduler.clear();
    assert!(scheduler.is_idle() && !scheduler.has(other));
}

/// When the cache is full, the sequence that arrived last is preempted. It continues when there is room.
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

/// What stands in the place of tokens counts: only a prompt with the same image finds the blocks of another.
#[test]
fn blocks_with_images_are_found_by_the_image() {
    let mut scheduler = scheduler([256, 8], 1, 128, 8);
    let image = |value| Features::new(vec![value; 40], 1);
    let prompt = |features| NewSequence {
        tokens: vec![7; 100],
        images: vec![Placed { at: 10, features }],
        ..generate(0..1, 1)
    };
    let mut computed = |new| {
        scheduler.add(new);
        let batch = scheduler.schedule().expect("a prompt");
        let images = batch.step.rows.iter().filter(|row| row.token == FEATURE).count();
        let outcome = outcome(&scheduler, 3);
        scheduler.commit(&batch, &outcome);
        (batch.step.rows.len(), images)
    };
    assert_eq!(computed(prompt(image(1.0))), (100, 40));
    assert_eq!(computed(prompt(image(2.0))), (100, 40), "another image");
    assert_eq!(computed(generate(0..1, 1)), (1, 0));
    assert_eq!(computed(prompt(image(1.0))), (4, 0), "the same once more");
    let without = NewSequence { images: Vec::new(), ..prompt(image(1.0)) };
    assert_eq!(computed(without), (100, 0), "no image");
}

/// Where the one whose turn it is has to give way, another runs in its place.
#[test]
fn something_runs_as_long_as_anything_can() {
    let mut scheduler = scheduler([64, 1], 2, 64, 2);
    scheduler.add(generate(0..10, 20));
    scheduler.add(generate(100..130, 20));
    let mut steps = 0;
    while !scheduler.is_idle() {
        let batch = scheduler.schedule().expect("something runs");
        let outcome = outcome(&scheduler, 3);
        scheduler.commit(&batch, &outcome);
        steps += 1;
    }
    assert!((40..60).contains(&steps), "{steps} steps");
}
