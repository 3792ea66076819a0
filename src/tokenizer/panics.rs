//! The `tokenizers` crate panics on some rare texts. What it panics with becomes an error, and is not
//! printed.

use std::{
    any::Any,
    cell::Cell,
    panic::{AssertUnwindSafe, catch_unwind, set_hook, take_hook},
    sync::Once,
};

thread_local! {
    /// Whether what this thread panics with is not printed.
    static IS_QUIET: Cell<bool> = const { Cell::new(false) };
}

/// What the function returns, or the message with which it panics. Other threads' panics are printed as ever.
pub fn caught<T>(run: impl FnOnce() -> T) -> Result<T, String> {
    static HOOK: Once = Once::new();
    HOOK.call_once(|| {
        let print = take_hook();
        set_hook(Box::new(move |panic| {
            if !IS_QUIET.get() {
                print(panic);
            }
        }));
    });
    IS_QUIET.set(true);
    let outcome = catch_unwind(AssertUnwindSafe(run));
    IS_QUIET.set(false);
    outcome.map_err(message)
}

fn message(panic: Box<dyn Any + Send>) -> String {
    let text = panic.downcast_ref::<&str>().copied().or(panic.downcast_ref::<String>().map(String::as_str));
    text.unwrap_or("no reason").to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_panic_is_its_message() {
        assert_eq!(caught(|| 3), Ok(3));
        assert_eq!(caught(|| panic!("a reason")), Err::<(), _>("a reason".to_owned()));
        let number = 3;
        assert_eq!(caught(|| panic!("reason {number}")), Err::<(), _>("reason 3".to_owned()));
        assert!(!IS_QUIET.get());
    }
}
