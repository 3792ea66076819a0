//! Jinja as transformers sets it up: its syntax, its functions, and bounds on what a template may cost.

use crate::chat::{
    arguments::{pay, refusal},
    filters, json, objects, print, source, text, time,
};
use minijinja::{AutoEscape, Environment, Error, ErrorKind, State, Value, syntax::SyntaxConfig};
use std::{collections::BTreeSet, io::Write};

/// The name of the template in its environment.
const NAME: &str = "chat";

/// How much work a template may do: so many instructions, or 64 times as many bytes of text.
const BUDGET: u64 = 4_000_000;

/// The longest prompt in bytes.
const LONGEST: usize = 32 << 20;

/// How deep a template's calls of itself may go.
const DEEPEST: usize = 100;

/// An environment in which `text` is the one template.
///
/// # Errors
/// Where the text is not a Jinja template.
pub fn environment(text: &str) -> Result<Environment<'static>, Error> {
    let mut environment = Environment::new();
    let syntax = SyntaxConfig::builder().trim_blocks(true).lstrip_blocks(true).build();
    environment.set_syntax(syntax.expect("no delimiter changed"));
    environment.set_fuel(Some(BUDGET));
    environment.set_recursion_limit(DEEPEST);
    environment.set_unknown_method_callback(|state, of, name, arguments| match of.as_str() {
        Some(_) => text::call_method(state, of, name, arguments),
        None => objects::call_method(state, of, name, arguments),
    });
    environment.set_formatter(|out, state, value| {
        let is_escaped = !matches!(state.auto_escape(), AutoEscape::None) && !value.is_safe();
        let printed = print::printed(value)?;
        out.write_str(&if is_escaped { filters::escaped(&printed) } else { printed })?;
        Ok(())
    });
    environment.set_path_join_callback(|_, _| "another file".into());
    environment.set_loader(|_| -> Result<Option<String>, Error> {
        Err(refusal("a chat template is one file: write into it what it includes, imports or extends"))
    });
    environment.add_function("raise_exception", |message: &Value| -> Result<Value, Error> {
        Err(refusal(print::printed(message)?))
    });
    environment.add_function("strftime_now", |state: &State, format: &str| {
        // Each of the pattern's letters may become a name of the calendar.
        pay(state, format.len().saturating_mul(64))?;
        time::strftime_now(format)
    });
    environment.add_function("range", objects::range);
    environment.add_function("namespace", objects::namespace);
    environment.add_function("cycler", objects::cycler);
    environment.add_function("joiner", minijinja_contrib::globals::joiner);
    environment.add_global("dict", Value::from_object(objects::MakeMap));
    environment.remove_global("debug");
    environment.add_filter(source::KEPT, objects::kept);
    environment.add_filter("tojson", json::to_json);
    filters::add_to(&mut environment);
    environment.add_template_owned(NAME, source::as_minijinja_reads_it(text)?)?;
    Ok(environment)
}

/// Whether the text of the template in an environment has a word.
pub fn mentions(environment: &Environment<'_>, word: &str) -> bool {
    environment.get_template(NAME).expect("it was added").source().contains(word)
}

/// The special tokens that the template of an environment names.
pub fn special_tokens(environment: &Environment<'_>) -> BTreeSet<String> {
    let template = environment.get_template(NAME).expect("it was added");
    let variables = template.undeclared_variables(false).into_iter();
    variables.filter(|name| name.ends_with("_token")).collect()
}

/// Renders the template of an environment.
///
/// # Errors
/// Where the template refuses, fails, or costs too much.
pub fn render(environment: &Environment<'_>, words: Value) -> Result<String, Error> {
    let mut out = Bounded(Vec::new());
    let rendered = environment.get_template(NAME)?.render_captured_to(words, &mut out);
    match rendered {
        Err(e) if e.kind() == ErrorKind::OutOfFuel => {
            Err(refusal("the template takes too long or too much memory"))
        }
        Err(e) if e.kind() == ErrorKind::WriteFailure => {
            Err(refusal("the template writes too long a prompt"))
        }
        Err(e) => Err(e),
        Ok(_) => Ok(String::from_utf8_lossy(&out.0).into_owned()),
    }
}

/// What an error says, without line breaks; with the place in the template where its syntax is wrong.
pub fn reason(error: &Error) -> String {
    let text = match error.detail() {
        Some(detail) if error.kind() != ErrorKind::SyntaxError => detail.to_owned(),
        _ => error.to_string(),
    };
    text.replace('\n', " ")
}

/// Takes [`LONGEST`] bytes.
struct Bounded(Vec<u8>);

impl Write for Bounded {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        if self.0.len() + bytes.len() > LONGEST {
            return Err(std::io::ErrorKind::FileTooLarge.into());
        }
        self.0.extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}
