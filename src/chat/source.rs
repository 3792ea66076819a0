//! The few things that Jinja2 reads and minijinja does not, written in other words that both read alike:
//! `{% generation %}`, texts formatted by `%`, a `+` before a number, tuples without parentheses, Python's
//! escapes, and the line breaks of Windows.
//!
//! The text of a template is taken apart into tokens as Jinja2 does it, so nothing inside of texts, comments
//! and raw blocks changes.

use crate::chat::arguments::refusal;
use minijinja::Error;

/// The filter that stands for Python's operator `%`.
pub const REMAINDER: &str = "__mod__";

/// The filter through which every value passes that a template assigns to a name.
pub const KEPT: &str = "__kept__";

/// A template in minijinja's words. A tag that does not end stays as it is, for minijinja to complain of.
///
/// # Errors
/// Where a loop is left from within a block in it that minijinja cannot leave.
pub fn as_minijinja_reads_it(template: &str) -> Result<String, Error> {
    let template = template.replace("\r\n", "\n").replace('\r', "\n");
    let mut out = String::with_capacity(template.len());
    let mut blocks: Vec<(&str, usize)> = Vec::new();
    let mut rest = &*template;
    while let Some(at) = rest.find('{') {
        out.push_str(&rest[..at]);
        rest = &rest[at..];
        let Some(tag) = Tag::at(rest) else { break };
        enter_or_leave(&mut blocks, &tag)?;
        out.push_str(&tag.rewritten);
        rest = &rest[tag.length..];
    }
    out.push_str(rest);
    Ok(out)
}

/// How many words and signs a tag may have, for minijinja goes as deep as an expression is long.
const LONGEST_TAG: usize = 2000;

/// How many conditions a block `if` may have, for minijinja goes as deep as they are many.
const MOST_CONDITIONS: usize = 500;

/// What begins with a brace in a template: a tag, a comment, a raw block or the brace alone.
struct Tag<'a> {
    length: usize,
    rewritten: String,
    /// The first word of a block's tag.
    name: &'a str,
    /// Whether the tag assigns to a name.
    assigns: bool,
    /// How many words and signs the tag has.
    tokens: usize,
    /// Whether the method `cycle` may be called without values, in which case minijinja panics.
    cycles_nothing: bool,
}

impl<'a> Tag<'a> {
    /// The tag that a text begins with; none where it never ends.
    fn at(text: &'a str) -> Option<Self> {
        match text.get(..2) {
            Some("{#") => Some(Self::unchanged(&text[..2 + text[2..].find("#}")? + 2])),
            Some("{{") => Self::with_expression(text, "}}"),
            Some("{%") => match raw_block(text) {
                Some((length, begin)) if begin.ends_with("-%}") => Some(Self::unchanged(&text[..length])),
                Some((length, begin)) => {
                    // Jinja2 keeps the line break that follows the beginning of a raw block.
                    let begin_with_sign = begin.trim_end_matches("%}").trim_end_matches('+');
                    let rewritten = [begin_with_sign, "+%}", &text[begin.len()..length]].concat();
                    Some(Self { rewritten, ..Self::unchanged(&text[..length]) })
                }
                None => Self::with_expression(text, "%}"),
            },
            _ => Some(Self::unchanged(&text[..1])),
        }
    }

    fn unchanged(text: &'a str) -> Self {
        Self {
            length: text.len(),
            rewritten: text.to_owned(),
            name: "",
            assigns: false,
            tokens: 0,
            cycles_nothing: false,
        }
    }
}

/// Keeps account of the blocks that a tag is in, and of how many conditions each has.
fn enter_or_leave<'a>(blocks: &mut Vec<(&'a str, usize)>, tag: &Tag<'a>) -> Result<(), Error> {
    match tag.name {
        "set" if tag.assigns => {}
        "autoescape" | "block" | "call" | "filter" | "for" | "generation" | "if" | "macro" | "set"
        | "with" => {
            blocks.push((tag.name, 1));
        }
        "elif" => {
            let conditions = blocks.last_mut().map_or(0, |(_, conditions)| {
                *conditions += 1;
                *conditions
            });
            if conditions > MOST_CONDITIONS {
                return Err(refusal(format!(
                    "a block if has at most {MOST_CONDITIONS} conditions: split it"
                )));
            }
        }
        "break" | "continue" => match blocks.iter().rfind(|(block, _)| *block != "if") {
            Some(("for", _)) | None => {}
            Some((block, _)) => {
                return Err(refusal(format!(
                    "{} cannot leave a block {block}: put it outside of the block",
                    tag.name
                )));
            }
        },
        name if name.starts_with("end") => drop(blocks.pop()),
        _ => {}
    }
    if tag.cycles_nothing {
        return Err(refusal("cycle needs values: write them in its brackets"));
    }
    if tag.tokens > LONGEST_TAG {
        return Err(refusal(format!("a tag has at most {LONGEST_TAG} words and signs: split it")));
    }
    Ok(())
}

/// The length of a raw block, and its first tag; none where this is no raw block, or it never ends.
fn raw_block(text: &str) -> Option<(usize, &str)> {
    let tag = |text: &str, name: &str| -> Option<usize> {
        let inside = text.strip_prefix("{%")?;
        let inside = inside.strip_prefix(['-', '+']).unwrap_or(inside).trim_start();
        let after = inside.strip_prefix(name)?.trim_start();
        let end = after.strip_prefix(['-', '+']).unwrap_or(after).strip_prefix("%}")?;
        Some(text.len() - end.len())
    };
    let begin = tag(text, "raw")?;
    let mut at = begin;
    loop {
        at += text[at..].find("{%")?;
        match tag(&text[at..], "endraw") {
            Some(length) => return Some((at + length, &text[..begin])),
            None => at += 2,
        }
    }
}

impl<'a> Tag<'a> {
    /// A tag with an expression, which ends with `close` outside of all brackets.
    fn with_expression(text: &'a str, close: &str) -> Option<Self> {
        let sign = usize::from(text[2..].starts_with(['-', '+']));
        let mut tokens = Vec::new();
        let (mut at, mut depth, mut assigns) = (2 + sign, 0_usize, false);
        let ends = |text: &str| {
            text.starts_with(close)
                || text.strip_prefix(['-', '+']).is_some_and(|rest| rest.starts_with(close))
        };
        let end = loop {
            let spaces = text.len() - at - text[at..].trim_start().len();
            let rest = &text[at + spaces..];
            if depth == 0 && ends(rest) {
                break at + spaces;
            }
            let token = token_at(rest)?;
            match token {
                "(" | "[" | "{" => depth += 1,
                ")" | "]" | "}" => depth = depth.checked_sub(1)?,
                "=" => assigns |= depth == 0,
                _ => {}
            }
            tokens.push((&text[at..at + spaces], token));
            at += spaces + token.len();
        };
        let name = tokens.first().map_or("", |(_, token)| token);
        let length = end + usize::from(!text[end..].starts_with(close)) + close.len();
        let is_block = close == "%}";
        let count = tokens.len();
        let cycles_nothing = tokens.windows(4).any(|four| {
            let words = [four[0].1, four[1].1, four[2].1, four[3].1];
            matches!(words, [".", "cycle", "(", ")" | "*" | "**"])
        });
        let expression = Expression::new(tokens, is_block).rewritten();
        let rewritten = [&text[..2 + sign], &expression, &text[at..length]].concat();
        let name = if is_block { name } else { "" };
        Some(Self { length, rewritten, name, assigns, tokens: count, cycles_nothing })
    }
}

/// The token that a text begins with; none where a text in it never ends, or the text is empty.
fn token_at(text: &str) -> Option<&str> {
    let first = text.chars().next()?;
    let while_in = |is: fn(char) -> bool| text.find(|c| !is(c)).unwrap_or(text.len());
    let length = match first {
        '\'' | '"' => {
            let mut is_escaped = false;
            let end = text.char_indices().skip(1).find(|(_, c)| {
                let ends = *c == first && !is_escaped;
                is_escaped = *c == '\\' && !is_escaped;
                ends
            });
            end?.0 + 1
        }
        '0'..='9' => number_length(text),
        _ if is_of_name(first) => while_in(is_of_name),
        _ if ["**", "//", "==", "!=", "<=", ">="].iter().any(|operator| text.starts_with(operator)) => 2,
        _ => first.len_utf8(),
    };
    Some(&text[..length])
}

fn is_of_name(c: char) -> bool {
    c == '_' || c.is_alphanumeric()
}

/// The length of a number, with its fraction and exponent.
fn number_length(text: &str) -> usize {
    let digits =
        |from: usize| text[from..].find(|c| !is_of_name(c)).map_or(text.len(), |length| from + length);
    let mut end = digits(0);
    let is_decimal = |end: usize| text[..end].chars().all(|c| c.is_ascii_digit() || c == '_');
    if is_decimal(end)
        && text[end..].starts_with('.')
        && text[end + 1..].starts_with(|c: char| c.is_ascii_digit())
    {
        end = digits(end + 1);
    }
    let has_exponent = text[..end].ends_with(['e', 'E']) && !text.starts_with("0x");
    if has_exponent && text[end..].starts_with(['+', '-']) { digits(end + 1) } else { end }
}

/// The tokens of a tag, each with the spaces before it, and what is to be written before each.
struct Expression<'a> {
    tokens: Vec<(&'a str, &'a str)>,
    /// How many brackets are to be opened before a token.
    opened: Vec<usize>,
    /// How many brackets are to be closed before a token; the last number is for the end.
    closed: Vec<usize>,
    is_block: bool,
}

/// What is known of an expression in brackets, of which a part has been read.
struct Part {
    /// The token at which the operand of a multiplication begins.
    start: usize,
    /// Whether the right side of a `%` is being read.
    in_remainder: bool,
}

impl<'a> Expression<'a> {
    fn new(tokens: Vec<(&'a str, &'a str)>, is_block: bool) -> Self {
        let (opened, closed) = (vec![0; tokens.len()], vec![0; tokens.len() + 1]);
        Self { tokens, opened, closed, is_block }
    }

    fn rewritten(mut self) -> String {
        let is_tuple = self.bracket_remainders() && !self.is_block;
        let mut out = String::from(if is_tuple { "(" } else { "" });
        let is_set = self.is_block && self.tokens.first().is_some_and(|(_, token)| *token == "set");
        let assigned = self.tokens.iter().position(|(_, token)| *token == "=").filter(|_| is_set);
        for (i, (spaces, token)) in self.tokens.iter().enumerate() {
            out.push_str(&")".repeat(self.closed[i]));
            out.push_str(spaces);
            out.push_str(&"(".repeat(self.opened[i]));
            match *token {
                "generation" if self.is_block && i == 0 => out.push_str("with"),
                "endgeneration" if self.is_block && i == 0 => out.push_str("endwith"),
                "%" => out.extend([")|", REMAINDER, "("]),
                "=" if assigned == Some(i) => out.push_str("=("),
                "+" if !self.follows_operand(i) => {}
                _ if token.starts_with(['\'', '"']) && token.contains('\\') => write_text(&mut out, token),
                _ => out.push_str(token),
            }
        }
        out.push_str(&")".repeat(self.closed[self.tokens.len()]));
        out.push_str(if is_tuple { ")" } else { "" });
        if let Some(assigned) = assigned {
            let in_namespace = self.tokens[..assigned].iter().any(|(_, token)| *token == ".");
            out.push_str(&format!(")|{KEPT}({in_namespace})"));
        }
        out
    }

    /// Puts brackets around both sides of each `%`, which binds as a multiplication does. Whether there is a
    /// comma outside of all brackets.
    fn bracket_remainders(&mut self) -> bool {
        let part = |start| Part { start, in_remainder: false };
        let mut parts = vec![part(0)];
        let mut has_comma = false;
        for i in 0..self.tokens.len() {
            let token = self.tokens[i].1;
            let ends_operand = match token {
                ")" | "]" | "}" | "*" | "/" | "//" | "%" => true,
                _ => self.ends_multiplication(i),
            };
            let Some(inner) = parts.last_mut() else { break };
            if ends_operand && std::mem::take(&mut inner.in_remainder) {
                self.closed[i] += 1;
            }
            match token {
                "%" => {
                    inner.in_remainder = true;
                    self.opened[inner.start] += 1;
                }
                "(" | "[" | "{" => parts.push(part(i + 1)),
                ")" | "]" | "}" => drop(parts.pop()),
                _ if self.ends_multiplication(i) => inner.start = i + 1,
                _ => {}
            }
            has_comma |= token == "," && parts.len() == 1;
        }
        if parts.first().is_some_and(|outer| outer.in_remainder) {
            self.closed[self.tokens.len()] += 1;
        }
        has_comma
    }

    /// Whether a token binds its sides less than a multiplication does, or separates expressions.
    fn ends_multiplication(&self, i: usize) -> bool {
        match self.tokens[i].1 {
            "+" | "-" => self.follows_operand(i),
            "~" | "," | ":" | "=" | "==" | "!=" | "<" | ">" | "<=" | ">=" => true,
            "is" => false,
            token if token.starts_with(is_of_name) => {
                let is_keyword_of_block = self.is_block && i == 0;
                let is_word_between = self.follows_operand(i) && !self.names_test(i);
                is_keyword_of_block || is_word_between || matches!(token, "not" if !self.names_test(i))
            }
            _ => false,
        }
    }

    /// Whether a word is the name of a test, or the `not` before it.
    fn names_test(&self, i: usize) -> bool {
        let before = |i: usize| i.checked_sub(1).map_or("", |i| self.tokens[i].1);
        before(i) == "is" || before(i) == "not" && i > 0 && before(i - 1) == "is"
    }

    /// Whether the token before this one ends an operand, so that an operator may follow.
    fn follows_operand(&self, i: usize) -> bool {
        let Some(before) = i.checked_sub(1) else { return false };
        match self.tokens[before].1 {
            ")" | "]" | "}" => true,
            "and" | "or" | "not" | "in" | "is" | "if" | "elif" | "else" => self.names_test(before),
            _ if self.is_block && before == 0 => false,
            token => token.starts_with(|c| is_of_name(c) || c == '\'' || c == '"'),
        }
    }
}

/// Writes a text in quotes, whose escapes are Python's, with the two escapes that all know.
fn write_text(out: &mut String, token: &str) {
    let quote = &token[..1];
    out.push_str(quote);
    for c in unescaped(&token[1..token.len() - 1]).chars() {
        if c == '\\' || quote.starts_with(c) {
            out.push('\\');
        }
        out.push(c);
    }
    out.push_str(quote);
}

/// A text without Python's escapes. What is none stays, with its backslash.
fn unescaped(text: &str) -> String {
    let mut out = String::new();
    let mut rest = text;
    while let Some((before, after)) = rest.split_once('\\') {
        out.push_str(before);
        let first = after.chars().next().unwrap_or('\\');
        let simple = match first {
            '\n' => Some(""),
            '\\' => Some("\\"),
            '\'' => Some("'"),
            '"' => Some("\""),
            'a' => Some("\x07"),
            'b' => Some("\x08"),
            'f' => Some("\x0c"),
            'n' => Some("\n"),
            'r' => Some("\r"),
            't' => Some("\t"),
            'v' => Some("\x0b"),
            _ => None,
        };
        let octal = after.bytes().take(3).take_while(|byte| matches!(byte, b'0'..=b'7')).count();
        let coded = match first {
            'x' => Some((1, 2, 16)),
            'u' => Some((1, 4, 16)),
            'U' => Some((1, 8, 16)),
            '0'..='7' => Some((0, octal, 8)),
            _ => None,
        };
        let code = coded.and_then(|(skipped, length, radix)| {
            let digits = after.get(skipped..skipped + length)?;
            let code = u32::from_str_radix(digits, radix).ok().filter(|_| !digits.starts_with('+'))?;
            Some((skipped + length, char::from_u32(code).unwrap_or(char::REPLACEMENT_CHARACTER)))
        });
        match (simple, code) {
            (Some(simple), _) => {
                out.push_str(simple);
                rest = after.get(first.len_utf8()..).unwrap_or("");
            }
            (None, Some((length, c))) => {
                out.push(c);
                rest = &after[length..];
            }
            (None, None) => {
                out.push('\\');
                rest = after;
            }
        }
    }
    out.push_str(rest);
    out
}
