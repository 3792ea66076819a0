//! The arguments of a call in a template, as Python binds them to parameters.

use minijinja::{
    Error, ErrorKind, State, Value,
    value::{Kwargs, ValueKind},
};

/// The arguments by the names of the parameters, in the parameters' order; none where one is not given.
///
/// # Errors
/// Where an argument has no parameter, or a parameter has two arguments.
pub fn bind<const N: usize>(arguments: &[Value], parameters: [&str; N]) -> Result<[Option<Value>; N], Error> {
    let (positional, named) = match arguments.split_last() {
        Some((last, rest)) if last.is_kwargs() => (rest, Some(Kwargs::try_from(last.clone())?)),
        _ => (arguments, None),
    };
    if positional.len() > N {
        return Err(refusal(format!("a call has {} arguments, and takes {N}", positional.len())));
    }
    let mut bound = std::array::from_fn(|i| positional.get(i).cloned());
    for name in named.iter().flat_map(Kwargs::args) {
        match parameters.iter().position(|parameter| *parameter == name) {
            Some(at) if bound[at].is_none() => {
                bound[at] = named.as_ref().map(|n| n.peek(name)).transpose()?;
            }
            _ => return Err(refusal(format!("a call has an argument {name} that it does not take"))),
        }
    }
    Ok(bound)
}

/// An error of the template's author, in one sentence.
pub fn refusal(sentence: impl Into<String>) -> Error {
    Error::new(ErrorKind::InvalidOperation, sentence.into())
}

/// An argument that must be there.
pub fn required(argument: Option<Value>) -> Result<Value, Error> {
    argument.ok_or_else(|| Error::from(ErrorKind::MissingArgument))
}

/// An argument that must be a text.
pub fn text(argument: &Value) -> Result<&str, Error> {
    argument.as_str().ok_or_else(|| refusal(format!("a text is needed, not {}", described(argument))))
}

/// An argument that must be a whole number. One beyond 64 bits is as good as the nearest within.
pub fn whole(argument: &Value) -> Result<i64, Error> {
    match i128::try_from(argument.clone()) {
        Ok(number) if argument.kind() == ValueKind::Bool || argument.is_integer() => {
            Ok(number.clamp(i64::MIN.into(), i64::MAX.into()) as i64)
        }
        _ => Err(refusal(format!("a whole number is needed, not {}", described(argument)))),
    }
}

/// An optional whole number: none where it is not given or is Python's None.
pub fn optional_whole(argument: Option<&Value>) -> Result<Option<i64>, Error> {
    argument.filter(|value| !value.is_none()).map(whole).transpose()
}

/// Pays for a result of `bytes` bytes before it is made, so that none exhausts the memory.
///
/// # Errors
/// Where a template's budget does not allow such a result.
pub fn pay(state: &State, bytes: usize) -> Result<(), Error> {
    state.consume_fuel(bytes.div_ceil(64) as u64)
}

fn described(value: &Value) -> String {
    value.kind().to_string()
}
