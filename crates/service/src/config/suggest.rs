//! What an administrator may have meant by a word that is not a key or a value. Pure; used by `config` alone.

/// A hint for serde's "unknown field 'x', expected one of 'y', 'z'" and its like.
pub(super) fn hint(message: &str) -> Option<String> {
    if !message.starts_with("unknown ") {
        return None;
    }
    let mut quoted = message.split('\'').skip(1).step_by(2);
    let wrong = quoted.next()?;
    let (distance, nearest) = quoted.map(|word| (edits(wrong, word), word)).min()?;
    // Two slips, or one in a short word: more is another word.
    (distance <= 2 && distance * 3 <= wrong.chars().count()).then(|| format!("did you mean '{nearest}'?"))
}

/// How many insertions, deletions, replacements and swaps of neighbours turn one word into the other.
fn edits(from: &str, to: &str) -> usize {
    let (from, to): (Vec<char>, Vec<char>) = (from.chars().collect(), to.chars().collect());
    let mut rows: Vec<Vec<usize>> = vec![(0..=to.len()).collect()];
    for (i, a) in from.iter().enumerate() {
        let mut row = vec![i + 1];
        for (j, b) in to.iter().enumerate() {
            let mut best = (rows[i][j] + usize::from(a != b)).min(rows[i][j + 1] + 1).min(row[j] + 1);
            if i > 0 && j > 0 && *a == to[j - 1] && from[i - 1] == *b {
                best = best.min(rows[i - 1][j - 1] + 1);
            }
            row.push(best);
        }
        rows.push(row);
    }
    rows[from.len()][to.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn slips_of_the_finger_are_recognized_and_other_words_are_not() {
        let hint_for =
            |word: &str| hint(&format!("unknown field '{word}', expected one of 'shares', 'rest'"));
        assert_eq!(hint_for("shraes").as_deref(), Some("did you mean 'shares'?"));
        assert_eq!(hint_for("share").as_deref(), Some("did you mean 'shares'?"));
        assert_eq!(hint_for("rset").as_deref(), Some("did you mean 'rest'?"));
        assert_eq!(hint_for("colour"), None);
        assert_eq!(hint_for("x"), None);
        assert_eq!(hint("invalid type: string 'rset', expected 'rest'"), None);
    }
}
