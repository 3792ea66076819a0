//! Stop strings.

/// The text so far, up to the first stop string. An ending that may be the beginning of a stop string is held
/// back until that is clear. A stop string may name special tokens, which are not part of the text.
pub(super) struct Stopping {
    stops: Vec<String>,
    pub text: String,
    /// The text with special tokens spelt out.
    spelt: String,
    /// The special tokens in `spelt`: where each begins there, and its length.
    special: Vec<(usize, usize)>,
    /// The number of bytes of `text` that were returned.
    shown: usize,
    /// The stop string that the text ended before.
    pub stopped_by: Option<String>,
}

impl Stopping {
    pub fn new(stops: &[String]) -> Self {
        let stops = stops.iter().filter(|stop| !stop.is_empty()).cloned().collect();
        Self {
            stops,
            text: String::new(),
            spelt: String::new(),
            special: Vec::new(),
            shown: 0,
            stopped_by: None,
        }
    }

    /// Appends a piece and returns the text that can be shown now.
    pub fn push(&mut self, piece: &str) -> &str {
        self.text.push_str(piece);
        self.spelt.push_str(piece);
        self.release()
    }

    /// Appends a special token, which is not shown, and returns the text that can be shown now.
    pub fn push_special(&mut self, spelling: &str) -> &str {
        self.special.push((self.spelt.len(), spelling.len()));
        self.spelt.push_str(spelling);
        self.release()
    }

    /// Returns the text that was held back.
    pub fn finish(&mut self) -> &str {
        self.give(self.text.len())
    }

    fn release(&mut self) -> &str {
        // What was shown holds no beginning of a stop string.
        let spelt_from = self.spelt_from();
        let first = |text: &str, from: usize| {
            let found =
                self.stops.iter().filter_map(|stop| Some((from + text[from..].find(stop.as_str())?, stop)));
            found.min_by_key(|(at, _)| *at)
        };
        let in_spelt = first(&self.spelt, spelt_from).map(|(at, stop)| (self.in_text(at), stop));
        let both = first(&self.text, self.shown).into_iter().chain(in_spelt);
        let end = match both.min_by_key(|(at, _)| *at) {
            Some((at, stop)) => {
                self.stopped_by = Some(stop.clone());
                self.text.truncate(at);
                at
            }
            None => {
                let held = |text: &str, from: usize| {
                    let mut tails = text[from..].char_indices().map(|(at, _)| from + at);
                    let is_beginning = |at: &usize| self.stops.iter().any(|s| s.starts_with(&text[*at..]));
                    tails.find(is_beginning).unwrap_or(text.len())
                };
                held(&self.text, self.shown).min(self.in_text(held(&self.spelt, spelt_from)))
            }
        };
        self.give(end)
    }

    /// The position in `text` of a position in `spelt`; that of a special token's beginning, if it is within
    /// one.
    fn in_text(&self, spelt: usize) -> usize {
        let hidden = |(at, len): &(usize, usize)| spelt.saturating_sub(*at).min(*len);
        spelt - self.special.iter().map(hidden).sum::<usize>()
    }

    /// The position in `spelt` after the text that was shown, before the special tokens that follow it.
    fn spelt_from(&self) -> usize {
        let mut from = self.shown;
        for (at, len) in &self.special {
            if *at < from {
                from += len;
            }
        }
        from
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

    /// Pushes pieces, of which those in `<>` are special tokens.
    fn run(stops: &[&str], pieces: &[&str]) -> (Vec<String>, String, bool) {
        let stops: Vec<String> = stops.iter().map(|s| s.to_string()).collect();
        let mut stopping = Stopping::new(&stops);
        let mut shown = Vec::new();
        for piece in pieces {
            let is_special = piece.starts_with('<') && piece.ends_with('>');
            shown.push(
                if is_special { stopping.push_special(piece) } else { stopping.push(piece) }.to_owned(),
            );
            if stopping.stopped_by.is_some() {
                break;
            }
        }
        shown.push(stopping.finish().to_owned());
        (shown, stopping.text.clone(), stopping.stopped_by.is_some())
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

    #[test]
    fn a_stop_string_may_name_special_tokens() {
        let (shown, text, stopped) = run(&["<end>"], &["ok", "<end>", "more"]);
        assert_eq!((shown.concat().as_str(), text.as_str(), stopped), ("ok", "ok", true));
        let (shown, text, stopped) = run(&["b<x>\nc"], &["a", "<x>", "b", "<x>", "\n", "cd"]);
        assert_eq!((shown.concat().as_str(), text.as_str(), stopped), ("a", "a", true));
        assert_eq!(shown[..5], ["a", "", "", "", ""]);
    }

    #[test]
    fn special_tokens_within_a_stop_string_do_not_hide_it() {
        let (shown, text, stopped) = run(&["abc"], &["xa", "<s>", "b", "<s>", "cd"]);
        assert_eq!((shown.concat().as_str(), text.as_str(), stopped), ("x", "x", true));
        let (shown, ..) = run(&["b<x>c"], &["b", "<x>", "d", "<x>"]);
        assert_eq!(shown, ["", "", "bd", "", ""]);
    }
}
