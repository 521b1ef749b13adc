//! "Did you mean": the nearest of the words that would have been right.

/// The word nearest to `text`, when it is near enough to be a slip: at most a third of the word
/// differs, at least one character.
pub(crate) fn nearest<'w>(text: &str, words: impl IntoIterator<Item = &'w str>) -> Option<&'w str> {
    // Longer than any word of ours; comparing it with ten thousand ids would take its time.
    const LONGEST: usize = 64;
    if text.len() > LONGEST {
        return None;
    }
    let lower = text.to_lowercase();
    let near = words.into_iter().filter_map(|word| {
        let allowed = (text.chars().count().max(word.chars().count()) / 3).max(1);
        let far = distance(&lower, &word.to_lowercase(), allowed)?;
        (word != text).then_some((far, word))
    });
    near.min_by_key(|(far, _)| *far).map(|(_, word)| word)
}

/// The help that goes with it.
pub(crate) fn did_you_mean<'w>(
    text: &str,
    words: impl IntoIterator<Item = &'w str>,
) -> Option<String> {
    nearest(text, words).map(|word| format!("did you mean `{word}`?"))
}

/// So many insertions, deletions, replacements and swaps of neighbours turn one into the other, if
/// not more than `limit`.
fn distance(a: &str, b: &str, limit: usize) -> Option<usize> {
    let a: Vec<char> = a.chars().collect();
    let b: Vec<char> = b.chars().collect();
    if a.len().abs_diff(b.len()) > limit {
        return None;
    }
    let mut older = vec![0; b.len() + 1];
    let mut old: Vec<usize> = (0..=b.len()).collect();
    for i in 1..=a.len() {
        let mut new = vec![i; b.len() + 1];
        for j in 1..=b.len() {
            let replaced = old[j - 1] + usize::from(a[i - 1] != b[j - 1]);
            new[j] = replaced.min(old[j] + 1).min(new[j - 1] + 1);
            if i > 1 && j > 1 && a[i - 1] == b[j - 2] && a[i - 2] == b[j - 1] {
                new[j] = new[j].min(older[j - 2] + 1);
            }
        }
        older = std::mem::replace(&mut old, new);
    }
    (old[b.len()] <= limit).then_some(old[b.len()])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn slips_are_found_and_other_words_are_not() {
        let keys = ["command", "cwd", "env", "envFile", "enabled", "healthCheck", "dependsOn"];
        let near = |text| nearest(text, keys);
        assert_eq!(near("comand"), Some("command"));
        assert_eq!(near("cmd"), Some("cwd"));
        assert_eq!(near("healthcheck"), Some("healthCheck"));
        assert_eq!(near("depends_on"), Some("dependsOn"));
        assert_eq!(near("evn"), Some("env"));
        assert_eq!(near("image"), None);
        assert_eq!(near("volumes"), None);
        assert_eq!(near(&"x".repeat(100_000)), None);
    }
}
