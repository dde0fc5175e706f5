use std::path::Path;

/// Reads the first of `files` that exists into the environment: `KEY=VALUE` lines, `#` comments, quotes around a value
/// dropped. Variables that are set and not blank keep their value. To be called before any thread starts.
pub fn load_dotenv<P: AsRef<Path>>(files: impl IntoIterator<Item = P>) -> std::io::Result<()> {
    let Some(path) = files.into_iter().find(|p| p.as_ref().is_file()) else { return Ok(()) };
    for (key, value) in parse(&std::fs::read_to_string(path)?) {
        if std::env::var_os(&key).is_none_or(|v| v.is_empty()) {
            std::env::set_var(key, value);
        }
    }
    Ok(())
}

fn parse(text: &str) -> Vec<(String, String)> {
    let line = |line: &str| {
        let line = line.trim();
        let (key, value) = line.strip_prefix("export ").unwrap_or(line).split_once('=')?;
        let value = value.trim();
        let unquoted = ['"', '\''].iter().find_map(|&q| value.strip_prefix(q)?.strip_suffix(q)).unwrap_or(value);
        let key = key.trim();
        let valid = !key.is_empty() && !line.starts_with('#') && !key.contains(char::is_whitespace);
        valid.then(|| (key.to_owned(), unquoted.to_owned()))
    };
    text.lines().filter_map(line).collect()
}

#[cfg(test)]
mod tests {
    #[test]
    fn lines_are_keys_and_values() {
        let text = "# a comment\nA=1\r\nexport B = \"two words\"\n\nnonsense\nC='x=y'\n=3\n";
        let pair = |k: &str, v: &str| (k.to_owned(), v.to_owned());
        assert_eq!(super::parse(text), [pair("A", "1"), pair("B", "two words"), pair("C", "x=y")]);
    }
}
