//! Stop strings.

/// The text so far, up to the first stop string. An ending that may be the beginning of a stop string is held
/// back until that is clear.
pub(super) struct Stopping {
    stops: Vec<String>,
    pub text: String,
    /// The number of bytes of `text` that were returned.
    shown: usize,
    pub stopped: bool,
}

impl Stopping {
    pub fn new(stops: &[String]) -> Self {
        Self { stops: stops.to_vec(), text: String::new(), shown: 0, stopped: false }
    }

    /// Appends a piece and returns the text that can be shown now.
    pub fn push(&mut self, piece: &str) -> &str {
        self.text.push_str(piece);
        let stops = || self.stops.iter().filter(|stop| !stop.is_empty());
        if let Some(at) = stops().filter_map(|stop| self.text.find(stop.as_str())).min() {
            self.text.truncate(at);
            self.stopped = true;
        }
        let mut end = self.text.len();
        if !self.stopped {
            let is_beginning = |tail: &str| stops().any(|stop| stop.starts_with(tail));
            let tails = self.text[self.shown..].char_indices().map(|(at, _)| self.shown + at);
            end = tails.into_iter().find(|at| is_beginning(&self.text[*at..])).unwrap_or(end);
        }
        self.give(end)
    }

    /// Returns the text that was held back.
    pub fn finish(&mut self) -> &str {
        self.give(self.text.len())
    }

    fn give(&mut self, end: usize) -> &str {
        let from = self.shown.min(end);
        self.shown = end;
        &self.text[from..end]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn run(stops: &[&str], pieces: &[&str]) -> (Vec<String>, String, bool) {
        let stops: Vec<String> = stops.iter().map(|s| s.to_string()).collect();
        let mut stopping = Stopping::new(&stops);
        let mut shown = Vec::new();
        for piece in pieces {
            shown.push(stopping.push(piece).to_owned());
            if stopping.stopped {
                break;
            }
        }
        shown.push(stopping.finish().to_owned());
        (shown, stopping.text.clone(), stopping.stopped)
    }

    #[test]
    fn a_stop_string_ends_the_text_even_across_pieces() {
        let (shown, text, stopped) = run(&["END"], &["one E", "N", "D two", "three"]);
        assert_eq!((text.as_str(), stopped), ("one ", true));
        assert_eq!(shown.concat(), "one ");
    }

    #[test]
    fn what_only_looked_like_a_stop_string_is_shown() {
        let (shown, text, stopped) = run(&["END", "\n\n"], &["an E", "Nd\n", "of it é", "\n"]);
        assert_eq!((text.as_str(), stopped), ("an ENd\nof it é\n", false));
        assert_eq!(shown, ["an ", "ENd", "\nof it é", "", "\n"]);
    }

    #[test]
    fn the_first_of_several_counts_and_an_empty_one_does_not() {
        let (_, text, stopped) = run(&["", "c", "b"], &["abc"]);
        assert_eq!((text.as_str(), stopped), ("a", true));
    }
}
