/// Replaces `$VAR` and `${VAR}` by what `lookup` gives, by nothing where it gives nothing. Other dollars stay.
pub(crate) fn expand(text: &str, lookup: &dyn Fn(&str) -> Option<String>) -> String {
    let name_len = |s: &str| s.bytes().take_while(|b| b.is_ascii_alphanumeric() || *b == b'_').count();
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(dollar) = rest.find('$') {
        out.push_str(&rest[..dollar]);
        let after = &rest[dollar + 1..];
        let (name, end) = match after.strip_prefix('{') {
            Some(braced) => {
                let len = name_len(braced);
                (&braced[..len], if braced[len..].starts_with('}') { len + 2 } else { 0 })
            }
            None => (&after[..name_len(after)], name_len(after)),
        };
        if end == 0 || name.is_empty() {
            out.push('$');
            rest = after;
        } else {
            out.push_str(&lookup(name).unwrap_or_default());
            rest = &after[end..];
        }
    }
    out + rest
}

#[cfg(test)]
mod tests {
    use super::expand;

    #[test]
    fn variables_are_replaced_wherever_they_stand() {
        let lookup = |name: &str| (name == "HOME").then(|| "/root".to_owned());
        assert_eq!(expand("$HOME/x and ${HOME}y", &lookup), "/root/x and /rooty");
        assert_eq!(expand("a$NOPE-b", &lookup), "a-b");
        assert_eq!(expand("5$ ${HOME $", &lookup), "5$ ${HOME $");
    }
}
