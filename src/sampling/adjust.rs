//! Changes to logits before sampling: biases are added, then penalties apply to tokens that occurred before,
//! then DRY.

use super::{NO_CUT, Sampling};
use std::collections::{BTreeMap, BTreeSet};

/// Penalties that make tokens less likely if they occurred before, in the prompt or after it.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Penalties {
    /// Divides positive logits and multiplies the others (Keskar et al. 2019, "CTRL"); 1: none.
    pub repetition: f32,
    /// Subtracted for each occurrence of the token (OpenAI's API); 0: none.
    pub frequency: f32,
    /// Subtracted once if the token occurred (OpenAI's API); 0: none.
    pub presence: f32,
    /// How many of the last tokens count as occurrences; 0: all.
    pub last: u32,
}

/// DRY, "don't repeat yourself" (p-e-w, text-generation-webui #5677): if the last `length` tokens repeat an
/// earlier passage, the token that would continue the repetition loses multiplier · base^(length − allowed).
#[derive(Clone, Debug, PartialEq)]
pub struct Dry {
    /// 0: none.
    pub multiplier: f32,
    pub base: f32,
    /// Repetitions of fewer tokens are not penalised.
    pub allowed: u32,
    /// How many of the last tokens are searched for repetitions; 0: all.
    pub last: u32,
    /// Tokens that end a repetition: none extends across them.
    pub breakers: BTreeSet<u32>,
}

/// A token whose logit changes, and how.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Adjusted {
    pub token: u32,
    /// How often the token occurred, for the penalties.
    pub count: u32,
    /// Added before the penalties.
    pub bias: f32,
    /// Subtracted after the penalties.
    pub dry: f32,
}

/// The most biases and bans. This bounds the size of a step.
pub const MAX_BIASES: usize = 1024;

/// Longer repetitions count as this long, as in DRY's original implementation: higher powers make no
/// difference.
const LONGEST: usize = 50;

impl Penalties {
    pub const NONE: Self = Self { repetition: 1.0, frequency: 0.0, presence: 0.0, last: 0 };

    /// Whether they change anything.
    pub fn are_some(&self) -> bool {
        (self.repetition, self.frequency, self.presence) != (1.0, 0.0, 0.0)
    }

    /// The logit after bias, penalties and DRY.
    pub fn apply(&self, logit: f32, to: &Adjusted) -> f32 {
        let mut logit = logit + to.bias;
        if to.count > 0 {
            logit = if logit > 0.0 { logit / self.repetition } else { logit * self.repetition };
            logit -= self.frequency * to.count as f32 + self.presence;
        }
        logit - to.dry
    }
}

impl Dry {
    pub const NONE: Self =
        Self { multiplier: 0.0, base: 1.75, allowed: 2, last: 0, breakers: BTreeSet::new() };

    /// The texts whose tokens end a repetition if no others are named, as in DRY's original implementation.
    pub const BREAKERS: [&str; 4] = ["\n", ":", "\"", "*"];

    /// Whether it changes anything.
    pub fn is_some(&self) -> bool {
        self.multiplier > 0.0
    }

    /// For each token that would continue a repetition, the length of the longest one.
    fn lengths(&self, tokens: &[u32]) -> BTreeMap<u32, usize> {
        let breaks = |token: &u32| self.breakers.contains(token);
        let mut lengths = BTreeMap::new();
        let tokens = last(tokens, self.last);
        let Some(newest) = tokens.last().filter(|newest| !breaks(newest)) else { return lengths };
        let begins = |end: &usize| tokens[end - 1] == *newest && !breaks(&tokens[*end]);
        for end in (1..tokens.len()).filter(begins) {
            let next = tokens[end];
            let (before, now) = (tokens[..end].iter().rev(), tokens.iter().rev());
            let same = before.zip(now).take(LONGEST).take_while(|(a, b)| a == b && !breaks(a)).count();
            let longest = lengths.entry(next).or_insert(0);
            *longest = same.max(*longest);
        }
        lengths
    }

    /// What a token loses that would continue a repetition of this length; finite.
    fn penalty(&self, length: usize) -> f32 {
        match length.checked_sub(self.allowed as usize) {
            Some(beyond) => (self.multiplier * self.base.powi(beyond as i32)).min(-NO_CUT),
            None => 0.0,
        }
    }
}

/// The last `count` tokens; all if `count` is 0.
fn last(tokens: &[u32], count: u32) -> &[u32] {
    let count = if count == 0 { tokens.len() } else { tokens.len().min(count as usize) };
    &tokens[tokens.len() - count..]
}

/// The tokens whose logits change in the prediction after `tokens`, each once, ordered by id. `is_first` says
/// whether these are the prompt.
pub(super) fn adjusted(sampling: &Sampling, tokens: &[u32], is_first: bool) -> Vec<Adjusted> {
    let Sampling { penalties, dry, .. } = sampling;
    let mut all = BTreeMap::new();
    let mut change = |token: u32, by: &dyn Fn(&mut Adjusted)| {
        by(all.entry(token).or_insert(Adjusted { token, count: 0, bias: 0.0, dry: 0.0 }));
    };
    let first = sampling.banned_first.iter().filter(|_| is_first);
    let next = sampling.banned_sequences.iter().filter_map(|banned| {
        let (last, before) = banned.split_last()?;
        tokens.ends_with(before).then_some(last)
    });
    let bans = first.chain(next).map(|token| (*token, f32::NEG_INFINITY));
    for (token, bias) in sampling.biases.iter().copied().chain(bans) {
        // A ban is a bias of minus infinity: clamp it, so that the logit stays a number.
        change(token, &|to| to.bias = (to.bias + bias).clamp(NO_CUT, -NO_CUT));
    }
    if penalties.are_some() {
        last(tokens, penalties.last).iter().for_each(|token| change(*token, &|to| to.count += 1));
    }
    if dry.is_some() {
        let costs = dry.lengths(tokens).into_iter().map(|(token, length)| (token, dry.penalty(length)));
        costs.filter(|(_, cost)| *cost > 0.0).for_each(|(token, cost)| change(token, &|to| to.dry = cost));
    }
    all.into_values().collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The last four tokens contain one token twice and two others once; a token that is not among them is
    /// not changed.
    #[test]
    fn penalties_are_for_what_was_there() {
        let penalties = Penalties { repetition: 2.0, frequency: 0.25, presence: 0.5, last: 4 };
        let of =
            |penalties, tokens: &[u32]| Sampling { penalties, ..Sampling::GREEDY }.adjusted(tokens, false);
        let found = of(penalties, &[9, 9, 9, 5, 3, 5, 8]);
        let counts: Vec<_> = found.iter().map(|to| (to.token, to.count)).collect();
        assert_eq!(counts, [(3, 1), (5, 2), (8, 1)]);
        assert_eq!(penalties.apply(3.0, &found[1]), 3.0 / 2.0 - 2.0 * 0.25 - 0.5);
        assert_eq!(penalties.apply(-3.0, &found[0]), -3.0 * 2.0 - 0.25 - 0.5);
        assert_eq!(of(Penalties { last: 0, ..penalties }, &[9, 9, 5]).len(), 2);
        assert!(of(Penalties { last: 4, ..Penalties::NONE }, &[9, 9, 5]).is_empty());
    }

    /// Biases are added up and come before penalties; a banned token keeps a finite logit, below all others.
    #[test]
    fn biases_come_before_penalties() {
        let biases = vec![(4, 1.5), (7, f32::NEG_INFINITY), (4, 1.0), (9, f32::INFINITY)];
        let penalties = Penalties { repetition: 2.0, ..Penalties::NONE };
        let sampling = Sampling { biases, penalties, ..Sampling::GREEDY };
        let found = sampling.adjusted(&[4, 5], false);
        let after =
            |logit: f32| found.iter().map(|to| (to.token, penalties.apply(logit, to))).collect::<Vec<_>>();
        assert_eq!(after(-1.5), [(4, 0.5), (5, -3.0), (7, NO_CUT), (9, -NO_CUT)]);
    }

    /// A sequence's last token is banned where the others were just there. A ban at the beginning holds only
    /// there.
    #[test]
    fn bans_depend_on_the_place() {
        let banned_sequences = vec![vec![7], vec![4, 5, 8], vec![5, 9], vec![3, 5, 6], vec![]];
        let sampling = Sampling { banned_first: vec![2], banned_sequences, ..Sampling::GREEDY };
        let of = |tokens: &[u32], is_first| {
            let found = sampling.adjusted(tokens, is_first);
            assert!(found.iter().all(|to| to.bias == NO_CUT));
            found.iter().map(|to| to.token).collect::<Vec<_>>()
        };
        assert_eq!(of(&[1, 4, 5], false), [7, 8, 9]);
        assert_eq!(of(&[5], true), [2, 7, 9]);
        assert_eq!(of(&[5, 4], false), [7]);
        assert!(sampling.looks_back());
        // What is banned at the beginning, or everywhere, needs no token to be known.
        let alone = Sampling { banned_sequences: vec![vec![7]], ..sampling };
        assert!(!alone.looks_back());
    }

    /// The expectations of llama.cpp's own test (tests/test-sampling.cpp): which tokens are penalised, and by
    /// how much.
    #[test]
    fn dry_is_for_what_would_go_on_with_a_repetition() {
        let dry = Dry { multiplier: 1.0, base: 1.1, ..Dry::NONE };
        let cost = |dry: &Dry, tokens: &[u32]| -> Vec<(u32, f32)> {
            let sampling = Sampling { dry: dry.clone(), ..Sampling::GREEDY };
            let found = sampling.adjusted(tokens, false);
            found.iter().filter(|to| to.dry > 0.0).map(|to| (to.token, to.dry)).collect()
        };
        assert_eq!(cost(&dry, &[0, 1]), []);
        // The end, 0 1, repeats two tokens that stood before 2.
        assert_eq!(cost(&dry, &[0, 1, 2, 0, 1]), [(2, 1.0)]);
        assert_eq!(cost(&dry, &[0, 1, 3, 4, 0, 1]), [(3, 1.0)]);
        assert_eq!(cost(&dry, &[0, 1, 2, 3, 4, 0, 1]), [(2, 1.0)]);
        assert_eq!(cost(&Dry { last: 4, ..dry.clone() }, &[0, 1, 2, 3, 0, 1]), []);
        // One token more multiplies the penalty by the base once more; the longest repetition counts.
        assert_eq!(cost(&dry, &[5, 0, 1, 2, 8, 0, 1, 2, 9, 5, 0, 1]), [(2, 1.1)]);
        assert_eq!(cost(&dry, &[5, 0, 1, 2, 5, 0, 1, 3, 0, 1]), [(2, 1.0), (3, 1.0)]);
        // A repetition does not extend across a breaker, and a breaker does not continue one.
        assert_eq!(cost(&Dry { breakers: [0].into(), ..dry.clone() }, &[5, 0, 1, 2, 5, 0, 1]), []);
        assert_eq!(cost(&Dry { breakers: [2].into(), ..dry.clone() }, &[5, 0, 1, 2, 5, 0, 1]), []);
        // The penalty of a long repetition is finite.
        let long = Dry { base: 1e30, ..dry };
        assert_eq!(cost(&long, &[7; 80]), [(7, -NO_CUT)]);
    }
}
