//! The text index: numbers for the runs of three letters that a name has. Pure.
//!
//! An index of numbers (GIN over an array) knows no languages: it finds punctuation and every script alike, whatever the
//! database's locale is, and needs no extension.

/// Runs of three letters that the index is asked for at once; a name that has these is likely to have the others, which
/// are looked for in itself.
const ASKED: usize = 12;
/// Letters that the index is of.
const TRIGRAM: usize = 3;

/// What the index has of a name, in order, each once.
pub(super) fn of(name: &str) -> Vec<i32> {
    let mut numbers = Vec::with_capacity(name.len());
    take(name, &mut numbers);
    numbers.sort_unstable();
    numbers.dedup();
    numbers
}

/// What the index is asked for to find the names that contain all of these texts. Empty if none has three letters.
pub(super) fn question<'a>(literals: impl Iterator<Item = &'a str>) -> Vec<i32> {
    let mut numbers = Vec::new();
    literals.for_each(|literal| take(literal, &mut numbers));
    numbers.sort_unstable();
    numbers.dedup();
    let every = numbers.len().div_ceil(ASKED).max(1);
    numbers.into_iter().step_by(every).collect()
}

fn take(text: &str, numbers: &mut Vec<i32>) {
    let letters: Vec<char> = text.chars().flat_map(fold).collect();
    numbers.extend(letters.windows(TRIGRAM).map(number));
}

/// Each letter by itself, so that what a text contains is contained in it folded too.
fn fold(letter: char) -> impl Iterator<Item = char> {
    // The one letter whose lower case depends on what follows it.
    letter.to_lowercase().map(|letter| if letter == 'ς' { 'σ' } else { letter })
}

/// Different runs may have the same number: whoever is found is looked at.
fn number(run: &[char]) -> i32 {
    let run = run.iter().fold(0u64, |run, letter| (run << 21) | u64::from(u32::from(*letter)));
    // Fibonacci hashing: the high bits of the product depend on all of the number.
    let mixed = (run ^ (run >> 32)).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    ((mixed >> 32) as u32).cast_signed()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn short_texts_ask_nothing() {
        let asked = |literals: &[&str]| question(literals.iter().copied());
        assert_eq!(asked(&["ab", "", "c"]), [0i32; 0]);
        assert_eq!(asked(&["abcd", "xy"]).len(), 2);
        let long: String = (0..600u32).filter_map(|number| char::from_u32(0x4e00 + number)).collect();
        assert!((2..=ASKED).contains(&asked(&[&long]).len()));
        assert_ne!(of("abc"), of("acb"));
    }

    proptest! {
        #[test]
        fn what_contains_a_text_has_its_runs(before in "\\PC{0,6}", text in "[a-zA-ZñÑΣσςİß. ]{0,12}", after in "\\PC{0,6}") {
            let has = of(&format!("{before}{text}{after}"));
            for asked in [text.clone(), text.to_lowercase(), text.to_uppercase()] {
                let folded = format!("{before}{text}{after}").to_lowercase();
                if folded.contains(&asked.to_lowercase()) {
                    prop_assert!(question([&*asked].into_iter()).iter().all(|run| has.contains(run)), "{asked:?}");
                }
            }
        }
    }
}
