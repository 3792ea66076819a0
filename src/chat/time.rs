//! The date as Python's `strftime` writes it on Linux, in English.

use crate::chat::arguments::refusal;
use chrono::{DateTime, Datelike, Local, Timelike};
use minijinja::Error;

/// The widest field of a date.
const WIDEST: usize = 1000;

/// The function `strftime_now` of transformers: the local time in a given format.
///
/// # Errors
/// Where a field is wider than 1000 characters.
pub fn strftime_now(format: &str) -> Result<String, Error> {
    strftime(format, &Local::now())
}

/// A time in a given format. What is no directive stands as it is.
fn strftime(format: &str, time: &DateTime<Local>) -> Result<String, Error> {
    let mut out = String::new();
    let mut rest = format;
    while let Some((before, after)) = rest.split_once('%') {
        out.push_str(before);
        let (directive, length) = Directive::parse(after);
        if directive.width > WIDEST {
            return Err(refusal(format!("a field of a date is at most {WIDEST} characters wide")));
        }
        let literal = || directive.fill(format!("%{}", &after[..length]));
        out.push_str(&directive.field(time)?.unwrap_or_else(literal));
        rest = &after[length..];
    }
    out.push_str(rest);
    Ok(out)
}

/// What follows a percent sign: flags, a width, the modifier E or O, and a letter.
struct Directive {
    /// What fills a field up to its width: `0`, `_` for spaces, or `-` for nothing.
    pad: Option<char>,
    upper: bool,
    other_case: bool,
    width: usize,
    modifier: Option<char>,
    letter: Option<char>,
}

impl Directive {
    /// A directive, and its length in bytes.
    fn parse(text: &str) -> (Self, usize) {
        let flags = text.trim_start_matches(['_', '-', '0', '^', '#']);
        let digits = flags.trim_start_matches(|c: char| c.is_ascii_digit());
        let letter = digits.strip_prefix(['E', 'O']).unwrap_or(digits);
        let flags = &text[..text.len() - flags.len()];
        let width = &text[flags.len()..text.len() - digits.len()];
        let directive = Self {
            pad: flags.chars().rfind(|c| matches!(c, '_' | '-' | '0')),
            upper: flags.contains('^'),
            other_case: flags.contains('#'),
            width: if width.is_empty() { 0 } else { width.parse().unwrap_or(usize::MAX) },
            modifier: digits[..digits.len() - letter.len()].chars().next(),
            letter: letter.chars().next(),
        };
        let length = text.len() - letter.len() + directive.letter.map_or(0, char::len_utf8);
        (directive, length)
    }

    /// What the directive stands for; none where it is no directive.
    fn field(&self, time: &DateTime<Local>) -> Result<Option<String>, Error> {
        let Some(letter) = self.letter else { return Ok(None) };
        let takes = match self.modifier {
            Some('E') => "cCxXyY",
            Some(_) => "bBdeghHImMSuUVwWyG",
            None => return self.plain(letter, time),
        };
        if takes.contains(letter) { self.plain(letter, time) } else { Ok(None) }
    }

    fn plain(&self, letter: char, time: &DateTime<Local>) -> Result<Option<String>, Error> {
        let week = |first_day: u32| (time.ordinal0() + 7 - first_day) / 7;
        let from_sunday = time.weekday().num_days_from_sunday();
        let (_, hour) = time.hour12();
        let year = i64::from(time.year());
        let iso_year = i64::from(time.iso_week().year());
        Ok(Some(match letter {
            'a' | 'A' | 'b' | 'B' | 'h' => {
                self.name(&time.format(&format!("%{letter}")).to_string(), str::to_uppercase)
            }
            'p' => self.name(&time.format("%p").to_string(), str::to_lowercase),
            'P' => self.name(&time.format("%P").to_string(), str::to_lowercase),
            'n' => self.name("\n", str::to_owned),
            't' => self.name("\t", str::to_owned),
            '%' => self.name("%", str::to_owned),
            // Python's time has no zone here.
            'z' | 'Z' => String::new(),
            'f' => format!("{:06}", time.nanosecond() / 1000 % 1_000_000),
            'C' => self.number(year.div_euclid(100), 2, '0'),
            'd' => self.number(time.day(), 2, '0'),
            'e' => self.number(time.day(), 2, '_'),
            'g' => self.number(iso_year.rem_euclid(100), 2, '0'),
            'G' => self.number(iso_year, 4, '0'),
            'H' => self.number(time.hour(), 2, '0'),
            'I' => self.number(hour, 2, '0'),
            'j' => self.number(time.ordinal(), 3, '0'),
            'k' => self.number(time.hour(), 2, '_'),
            'l' => self.number(hour, 2, '_'),
            'm' => self.number(time.month(), 2, '0'),
            'M' => self.number(time.minute(), 2, '0'),
            's' => self.number(time.timestamp(), 1, '0'),
            'S' => self.number(time.second(), 2, '0'),
            'u' => self.number(time.weekday().number_from_monday(), 1, '0'),
            'U' => self.number(week(from_sunday), 2, '0'),
            'V' => self.number(time.iso_week().week(), 2, '0'),
            'w' => self.number(from_sunday, 1, '0'),
            'W' => self.number(week(time.weekday().num_days_from_monday()), 2, '0'),
            'y' => self.number(year.rem_euclid(100), 2, '0'),
            'Y' => self.number(year, 4, '0'),
            'c' => self.name(&strftime("%a %b %e %H:%M:%S %Y", time)?, str::to_owned),
            'D' | 'x' => self.name(&strftime("%m/%d/%y", time)?, str::to_owned),
            'F' => self.name(&strftime("%Y-%m-%d", time)?, str::to_owned),
            'r' => self.name(&strftime("%I:%M:%S %p", time)?, str::to_owned),
            'R' => self.name(&strftime("%H:%M", time)?, str::to_owned),
            'T' | 'X' => self.name(&strftime("%H:%M:%S", time)?, str::to_owned),
            _ => return Ok(None),
        }))
    }

    fn name(&self, name: &str, in_other_case: fn(&str) -> String) -> String {
        let name = if self.upper { name.to_uppercase() } else { name.to_owned() };
        let name = if self.other_case { in_other_case(&name) } else { name };
        self.fill(name)
    }

    fn number(&self, number: impl Into<i64>, digits: usize, pad: char) -> String {
        let (number, digits) = (number.into(), digits.max(self.width));
        self.fill(match self.pad.unwrap_or(pad) {
            '-' => number.to_string(),
            '_' => format!("{number:digits$}"),
            _ => format!("{number:0digits$}"),
        })
    }

    fn fill(&self, field: String) -> String {
        let missing = self.width.saturating_sub(field.chars().count());
        let fill = if self.pad == Some('0') { "0" } else { " " };
        fill.repeat(missing) + &field
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use chrono::TimeZone;

    #[test]
    fn dates_are_as_python_writes_them() {
        let time = Local.with_ymd_and_hms(2024, 3, 5, 15, 4, 9).single().expect("a time");
        for (format, expected) in [
            ("%d %b %Y, %A %-d %B", "05 Mar 2024, Tuesday 5 March"),
            ("%H:%M:%S %I%p %j %e|%-e|%_d", "15:04:09 03PM 065  5|5| 5"),
            ("%y %C %D %F %T %u %w %U %W %V %G", "24 20 03/05/24 2024-03-05 15:04:09 2 2 09 10 10 2024"),
            ("%c|%x|%X|%r|%R", "Tue Mar  5 15:04:09 2024|03/05/24|15:04:09|03:04:09 PM|15:04"),
            ("%^a %#p %5d|%-5d|%010d %6B %%", "TUE pm 00005|    5|0000000005  March %"),
            ("%Q 100% %- %é %Ed %Ey %Od %", "%Q 100% %- %é %Ed 24 05 %"),
            ("%5Q|%12", "  %5Q|         %12"),
            ("", ""),
        ] {
            assert_eq!(strftime(format, &time).expect("a date"), expected, "{format}");
        }
        assert!(strftime("%10000000000d", &time).is_err());
    }
}
