//! Masks secrets in what is printed.

/// Shorter secrets are not masked: they would hide half of every log.
const SHORTEST: usize = 5;

/// Knows the secrets of one task instance.
#[derive(Debug, Clone, Default)]
pub(crate) struct Mask(Vec<String>);

impl Mask {
    pub(crate) fn new(mut secrets: Vec<String>) -> Self {
        secrets.retain(|secret| secret.len() >= SHORTEST);
        // The longest first: one secret may contain another.
        secrets.sort_by_key(|secret| std::cmp::Reverse(secret.len()));
        secrets.dedup();
        Self(secrets)
    }

    pub(crate) fn apply(&self, text: String) -> String {
        self.0.iter().fold(text, |text, secret| {
            if text.contains(secret.as_str()) {
                text.replace(secret.as_str(), "***")
            } else {
                text
            }
        })
    }
}

#[cfg(test)]
mod tests {
    use super::Mask;

    #[test]
    fn masks_every_secret_and_nothing_else() {
        let mask = Mask::new(vec!["secret".into(), "secret-longer".into(), "abc".into()]);
        assert_eq!(
            mask.apply("a secret-longer and a secret, abc".into()),
            "a *** and a ***, abc"
        );
    }
}
