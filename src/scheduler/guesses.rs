//! Guesses: tokens that a text may go on with, run in the same step as the token before them.
//!
//! The last tokens of a text are looked up earlier in it (prompt lookup decoding, Saxena 2023); what followed
//! there may follow again. A guess is a row of the step like any other. Where the token before it turns out
//! as guessed, what is sampled after it counts, and the text gains more than one token by the step.
//! Otherwise it is as if the guess had not been. A token is sampled by its sequence's seed and its position,
//! whatever else a step holds, so a text is the same with guesses and without.

/// How many of a text's last tokens must have occurred before.
const MATCH: usize = 3;

/// How much the newest guess weighs in the share of right ones.
const NEWEST: f32 = 0.1;

/// How much the newest step weighs in what a step costs.
const NEWEST_COST: f32 = 0.2;

/// The guesses of one sequence, and how good they are.
#[derive(Debug)]
pub struct Guesses {
    /// The share of right ones among the first guesses of late.
    right: f32,
    /// The token that is guessed to come next, whether or not it runs.
    next: Option<u32>,
    /// Whether guesses are in flight.
    pub in_flight: bool,
}

impl Guesses {
    pub fn new() -> Self {
        Self { right: 0.5, next: None, in_flight: false }
    }

    /// The tokens that followed where the last tokens occurred last, at most `most`.
    pub fn look_up<'t>(&mut self, tokens: &'t [u32], most: usize) -> &'t [u32] {
        let before = tokens.len().saturating_sub(MATCH);
        let end = &tokens[before..];
        let at = tokens[..tokens.len().saturating_sub(1)].windows(MATCH).rposition(|window| window == end);
        let following = at.map_or(&tokens[tokens.len()..], |at| &tokens[at + MATCH..]);
        self.next = following.first().copied();
        &following[..following.len().min(most)]
    }

    /// Whether the next step waits for the one in flight: because that has guesses, or because the next may
    /// have good ones, which only a known token lets be looked up.
    pub fn wait(&self) -> bool {
        const GOOD: f32 = 0.6;
        self.in_flight || self.right > GOOD
    }

    /// Takes note of the token that came.
    pub fn observe(&mut self, token: u32) {
        if let Some(next) = self.next.take() {
            self.right += NEWEST * (f32::from(u8::from(next == token)) - self.right);
        }
    }

    /// How many of `most` guesses to run in a step that has so many rows without them: as many as give the
    /// most tokens for the time.
    pub fn worth(&self, costs: &Costs, rows: usize, most: usize) -> usize {
        let (mut best, mut count) = (rows as f32 / costs.of(rows), 0);
        let (mut tokens, mut chance) = (rows as f32, 1.0);
        for more in 1..=most {
            chance *= self.right;
            tokens += chance;
            let rate = tokens / costs.of(rows + more);
            if rate > best {
                (best, count) = (rate, more);
            }
        }
        count
    }
}

/// What decoding steps cost, by their number of rows.
#[derive(Debug)]
pub struct Costs {
    /// In seconds; zero until one was measured.
    measured: Vec<f32>,
}

impl Costs {
    /// For steps of at most so many rows.
    pub fn new(rows: usize) -> Self {
        Self { measured: vec![0.0; rows + 1] }
    }

    /// Takes note of a step.
    pub fn observe(&mut self, rows: usize, seconds: f32) {
        let Some(cost) = self.measured.get_mut(rows) else { return };
        // A step may be held up by something else: a much longer one counts less.
        let seconds = if *cost > 0.0 { seconds.min(2.0 * *cost) } else { seconds };
        *cost = if *cost > 0.0 { *cost + NEWEST_COST * (seconds - *cost) } else { seconds };
    }

    /// What a step of so many rows costs. Where none was measured, it is as much more than the nearest
    /// measured one as on a CPU, where rows cost the most.
    fn of(&self, rows: usize) -> f32 {
        const A_ROW: f32 = 0.3;
        let of = |rows: usize| 1.0 + A_ROW * (rows as f32 - 1.0);
        let known = (1..self.measured.len()).filter(|rows| self.measured[*rows] > 0.0);
        match known.min_by_key(|known| known.abs_diff(rows)) {
            Some(known) => self.measured[known] * of(rows) / of(known),
            None => of(rows),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_followed_before_is_guessed() {
        let mut guesses = Guesses::new();
        assert_eq!(guesses.look_up(&[1, 2, 3, 4, 5, 1, 2, 3], 7), [4, 5, 1, 2, 3]);
        assert_eq!(guesses.look_up(&[1, 2, 3, 4, 9, 1, 2, 3, 5, 1, 2, 3], 2), [5, 1], "the last time counts");
        assert_eq!(guesses.look_up(&[7, 7, 7, 7], 7), [7]);
        assert_eq!(guesses.look_up(&[1, 2, 3, 4, 5], 7), &[0; 0]);
        assert_eq!(guesses.look_up(&[1, 2], 7), &[0; 0]);
    }

    #[test]
    fn guesses_run_where_they_pay() {
        let mut costs = Costs::new(8);
        (1..=8).for_each(|rows| costs.observe(rows, 1.0 + 0.3 * (rows as f32 - 1.0)));
        let mut guesses = Guesses::new();
        for _ in 0..50 {
            guesses.next = Some(1);
            guesses.observe(1);
        }
        assert_eq!(guesses.worth(&costs, 1, 7), 7);
        for _ in 0..50 {
            guesses.next = Some(1);
            guesses.observe(2);
        }
        assert_eq!(guesses.worth(&costs, 1, 7), 0);
    }
}
