//! The functions of `then`.
//!
//! Functions take strings. Numbers and booleans are converted to strings; arrays and objects are an
//! error, except for `to_json`, `parse_json` and `get`. After `split` a function runs on each part.
//! If a function returns nothing (`first_word` of white space, `digits` of a word), the field is
//! missing, which is not counted as a failure.

use std::borrow::Cow;

use percent_encoding::percent_decode_str;
use regex::Regex;
use sha2::{Digest, Sha256};
use url::{Url, form_urlencoded};

use super::json::{self, JsonKind};
use super::json_value::JsonValue;
use super::named_values::NamedValues;
use super::path_trie::{ExtractedPaths, Trie};
use crate::call::{self, Json};
use crate::config::mapping::Function;

/// The result of a function: a value, nothing, or the reason of a failure.
type StepOutput<'a> = Result<Option<JsonValue<'a>>, String>;

/// A compiled function of `then`.
#[derive(Debug)]
pub(super) enum FunctionStep {
    /// A function without arguments.
    Named(Function),
    /// `{ get = "..." }`: the path as written, its trie and its slot.
    Get { shown: Box<str>, trie: Trie, slot: usize },
    /// `{ capture = "..." }`.
    Capture(Regex),
}

impl FunctionStep {
    /// Applies the function.
    pub(super) fn apply<'a>(&self, datum: JsonValue<'a>) -> StepOutput<'a> {
        match self {
            Self::Named(function) => apply(function, datum),
            Self::Get { shown, trie, slot } => get(shown, trie, *slot, datum),
            Self::Capture(regex) => capture(regex, datum),
        }
    }
}

fn apply<'a>(function: &Function, datum: JsonValue<'a>) -> StepOutput<'a> {
    match function {
        Function::ToJson => {
            let text = match datum.into_raw() {
                Cow::Borrowed(raw) => call::normalize_escapes(raw),
                Cow::Owned(raw) => Cow::Owned(call::normalize_escapes(&raw).into_owned()),
            };
            Ok(Some(JsonValue::Text(text)))
        }
        Function::ParseJson => parse_json(datum),
        Function::ParseQuery => Ok(Some(parse_query(&text_of(name(function), datum)?))),
        _ => Ok(of_text(function, text_of(name(function), datum)?)?.map(JsonValue::Text)),
    }
}

/// The string that a function takes.
fn text_of<'a>(name: &str, datum: JsonValue<'a>) -> Result<Cow<'a, str>, String> {
    datum.into_text().map_err(|other| format!("`{name}` does not apply to {}", other.kind().name()))
}

/// The value at a path of an object or a list.
fn get<'a>(shown: &str, trie: &Trie, slot: usize, datum: JsonValue<'a>) -> StepOutput<'a> {
    if !matches!(datum.kind(), JsonKind::Object | JsonKind::Array) {
        let kind = datum.kind().name();
        return Err(format!("`get` of `{shown}` does not apply to {kind}; parse it first"));
    }
    fn look_up<'r>(trie: &Trie, slot: usize, raw: &'r str) -> Result<Option<&'r str>, String> {
        let slots = ExtractedPaths::new(trie, raw);
        slots.fill().map_err(|error| error.to_string())?;
        Ok(slots.get(slot))
    }
    Ok(match datum.into_raw() {
        Cow::Borrowed(raw) => look_up(trie, slot, raw)?.and_then(JsonValue::from_json),
        Cow::Owned(raw) => {
            look_up(trie, slot, &raw)?.and_then(|found| JsonValue::from_json(found.to_owned()))
        }
    })
}

/// The match of an expression: its named groups as an object, its only group, or the whole match.
fn capture<'a>(regex: &Regex, datum: JsonValue<'a>) -> StepOutput<'a> {
    let text = text_of("capture", datum)?;
    let Some(found) = regex.captures(&text) else {
        let excerpt = json::excerpt(&format!("{text:?}"));
        return Err(format!("{excerpt} does not match {:?}", regex.as_str()));
    };
    let names: Vec<&str> = regex.capture_names().flatten().collect();
    if names.is_empty() {
        // The compiler accepts at most one unnamed group.
        let group = found.get(regex.captures_len() - 1);
        return Ok(group.map(|group| JsonValue::Text(Cow::Owned(group.as_str().to_owned()))));
    }
    let mut set = NamedValues::default();
    for name in names {
        if let Some(group) = found.name(name) {
            set.insert(Cow::Owned(name.to_owned()), Json::string(group.as_str()));
        }
    }
    Ok(Some(JsonValue::Object(set.into_fields())))
}

fn of_text<'a>(function: &Function, text: Cow<'a, str>) -> Result<Option<Cow<'a, str>>, String> {
    let result = match function {
        Function::Trim => slice(text, |t| t.trim()),
        Function::Lowercase => text.to_lowercase().into(),
        Function::Uppercase => text.to_uppercase().into(),
        Function::Capitalize => capitalize(&text).into(),
        Function::Digits => {
            return Ok(some_text(text.chars().filter(char::is_ascii_digit).collect()));
        }
        Function::FirstWord => {
            return Ok(text.split_whitespace().next().map(|word| word.to_owned().into()));
        }
        Function::RestWords => {
            let rest = text.trim_start().split_once(char::is_whitespace);
            return Ok(rest.and_then(|(_, rest)| some_text(rest.trim().to_owned())));
        }
        Function::Sha256 => hex::encode(Sha256::digest(text.as_bytes())).into(),
        Function::UrlHost => url_host(&text)?.into(),
        Function::UrlPath => url_path(&text)?.into(),
        Function::UrlDecode => percent_decode_str(&text)
            .decode_utf8()
            .map_err(|_| "the percent-encoding does not decode to UTF-8".to_owned())?
            .into_owned()
            .into(),
        Function::Slug => return Ok(some_text(slug(&text))),
        // These do not return a string.
        Function::ToJson
        | Function::ParseJson
        | Function::ParseQuery
        | Function::Get(_)
        | Function::Capture(_) => text,
    };
    Ok(Some(result))
}

/// The function's name in the mapping table.
fn name(function: &Function) -> &'static str {
    match function {
        Function::Trim => "trim",
        Function::Lowercase => "lowercase",
        Function::Uppercase => "uppercase",
        Function::Capitalize => "capitalize",
        Function::Digits => "digits",
        Function::FirstWord => "first_word",
        Function::RestWords => "rest_words",
        Function::Sha256 => "sha256",
        Function::UrlHost => "url_host",
        Function::UrlPath => "url_path",
        Function::UrlDecode => "url_decode",
        Function::ParseJson => "parse_json",
        Function::ToJson => "to_json",
        Function::ParseQuery => "parse_query",
        Function::Slug => "slug",
        Function::Get(_) => "get",
        Function::Capture(_) => "capture",
    }
}

fn some_text<'a>(text: String) -> Option<Cow<'a, str>> {
    (!text.is_empty()).then_some(Cow::Owned(text))
}

/// Applies a function that returns a part of its input; borrowed text is not copied.
fn slice<'a>(text: Cow<'a, str>, cut: impl Fn(&str) -> &str) -> Cow<'a, str> {
    match text {
        Cow::Borrowed(text) => Cow::Borrowed(cut(text)),
        Cow::Owned(text) => Cow::Owned(cut(&text).to_owned()),
    }
}

fn capitalize(text: &str) -> String {
    let mut chars = text.chars();
    let first = chars.next().into_iter().flat_map(char::to_uppercase);
    first.collect::<String>() + chars.as_str()
}

fn url_host(text: &str) -> Result<String, String> {
    let url = Url::parse(text.trim()).map_err(|e| format!("not a URL: {e}"))?;
    let host = url.host_str().filter(|host| !host.is_empty());
    host.map(str::to_owned).ok_or_else(|| "the URL has no host".to_owned())
}

/// The path of a URL, or of a path with a query.
fn url_path(text: &str) -> Result<String, String> {
    let text = text.trim();
    if text.starts_with('/') && !text.starts_with("//") {
        let end = text.find(['?', '#']).unwrap_or(text.len());
        return Ok(text[..end].to_owned());
    }
    let url = Url::parse(text).map_err(|e| format!("not a URL: {e}"))?;
    Ok(url.path().to_owned())
}

/// Parses JSON text. Objects and arrays are returned unchanged.
pub(super) fn parse_json(datum: JsonValue<'_>) -> StepOutput<'_> {
    let text = match datum.into_text() {
        Ok(text) => text,
        Err(other) => return Ok(Some(other)),
    };
    if !json::is_valid(&text) {
        return Err(format!("{} is not JSON", json::excerpt(&format!("{text:?}"))));
    }
    Ok(JsonValue::from_json(slice(text, |t| t.trim_matches([' ', '\t', '\n', '\r']))))
}

/// The query of a URL or a path, after the question mark; of any other text all of it.
fn query_of(text: &str) -> &str {
    let text = text.trim();
    let (before, query) = match text.split_once('?') {
        Some((before, query)) => (before, Some(query)),
        None => (text, None),
    };
    let has_scheme = before.split_once("://").is_some_and(|(scheme, _)| {
        !scheme.is_empty()
            && scheme.bytes().all(|b| b.is_ascii_alphanumeric() || b"+-.".contains(&b))
    });
    let is_address = before.starts_with('/') || has_scheme;
    match query {
        Some(query) if is_address || !before.contains(['=', '&']) => {
            // A fragment is not part of the query.
            query.split('#').next().unwrap_or_default()
        }
        None if is_address => "",
        _ => text,
    }
}

/// A query string as an object of strings. The value of a repeated name is a list.
fn parse_query<'a>(text: &str) -> JsonValue<'a> {
    let query = query_of(text);
    let mut places: std::collections::HashMap<String, usize> = Default::default();
    let mut all: Vec<(String, Vec<String>)> = Vec::new();
    for (name, value) in form_urlencoded::parse(query.as_bytes()) {
        let mut rendered = String::new();
        json::write_string(&mut rendered, &value);
        let place = *places.entry(name.into_owned()).or_insert_with_key(|name| {
            all.push((name.clone(), Vec::new()));
            all.len() - 1
        });
        all[place].1.push(rendered);
    }
    let mut set = NamedValues::default();
    for (name, mut values) in all {
        let value = match values.len() {
            1 => values.remove(0),
            _ => json::render_array(&values),
        };
        set.insert(name.into(), Json::from_valid_unchecked(value));
    }
    JsonValue::Object(set.into_fields())
}

/// Lower case ASCII letters and digits in groups joined by single hyphens. Latin letters lose their
/// accents; letters of other scripts are removed.
fn slug(text: &str) -> String {
    let mut out = String::new();
    let mut gap = false;
    for c in text.chars().flat_map(char::to_lowercase) {
        let letters = to_ascii(c);
        if letters.is_empty() {
            // A combining accent belongs to its letter and does not separate words.
            gap |= !('\u{300}'..='\u{36f}').contains(&c) && c != '\'' && c != '’';
            continue;
        }
        if gap && !out.is_empty() {
            out.push('-');
        }
        gap = false;
        letters.chars().for_each(|l| out.push(l));
    }
    out
}

/// A lower case Latin letter, or a digit, in ASCII (`ł` is `l`, `ß` is `ss`); empty for any other
/// character.
fn to_ascii(c: char) -> Cow<'static, str> {
    match c {
        'a'..='z' | '0'..='9' => Cow::Owned(c.to_string()),
        // Latin-1, Latin Extended-A and -B, Latin Extended Additional.
        'ª' | 'º' | 'ß'..='ö' | 'ø'..='\u{24f}' | '\u{1e00}'..='\u{1eff}' => {
            let letters = deunicode::deunicode_char(c).unwrap_or_default().chars();
            let letters = letters.filter(char::is_ascii_alphanumeric);
            Cow::Owned(letters.map(|letter| letter.to_ascii_lowercase()).collect())
        }
        _ => Cow::Borrowed(""),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn run(function: &Function, json: &'static str) -> Result<Option<String>, String> {
        let datum = JsonValue::from_json(json).unwrap();
        apply(function, datum).map(|made| made.map(|d| d.into_raw().into_owned()))
    }

    #[test]
    fn every_function_returns_documented_value() {
        // Each function does what its documentation says.
        for (function, input, output) in [
            (Function::Trim, r#"" a b\t""#, r#""a b""#),
            (Function::Lowercase, r#""ŻÓŁW""#, r#""żółw""#),
            (Function::Uppercase, r#""straße""#, r#""STRASSE""#),
            (Function::Capitalize, r#""élan VITAL""#, r#""Élan VITAL""#),
            (Function::Digits, r#""+48 (600) 1""#, r#""486001""#),
            (Function::FirstWord, r#""  Ada King Lovelace""#, r#""Ada""#),
            (Function::RestWords, r#"" Ada  King Lovelace ""#, r#""King Lovelace""#),
            (
                Function::Sha256,
                r#""abc""#,
                r#""ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad""#,
            ),
            (Function::UrlHost, r#""https://Shop.Example.com:8/a?b""#, r#""shop.example.com""#),
            (Function::UrlPath, r#""https://e.com/a/b?c#d""#, r#""/a/b""#),
            (Function::UrlPath, r#""/a/b?c""#, r#""/a/b""#),
            (Function::UrlDecode, r#""a%20%C4%85+b""#, r#""a ą+b""#),
            (Function::ParseJson, r#"" {\"a\":[1]} ""#, r#"{"a":[1]}"#),
            (Function::ToJson, r#"{"a": 1}"#, r#""{\"a\": 1}""#),
            (Function::ParseQuery, r#""?a=1&b=x+y&a=%32""#, r#"{"a":["1","2"],"b":"x y"}"#),
            (Function::ParseQuery, r#""/p?a=1#x""#, r#"{"a":"1"}"#),
            (Function::ParseQuery, r#""https://e.com/p?a=1&b=c%3Fd""#, r#"{"a":"1","b":"c?d"}"#),
            (Function::ParseQuery, r#""/p""#, "{}"),
            (Function::ParseQuery, r#""https://e.com/a=b""#, "{}"),
            (Function::ParseQuery, r#""p.html?a=1""#, r#"{"a":"1"}"#),
            (Function::ParseQuery, r#""u=http://x/?y=1&b=2""#, r#"{"u":"http://x/?y=1","b":"2"}"#),
            (
                Function::Slug,
                r#""  Zażółć: gęślą JAŹŃ's! Ünïcode ""#,
                r#""zazolc-gesla-jazns-unicode""#,
            ),
            (Function::Digits, "12.5", r#""125""#),
            (Function::Uppercase, "true", r#""TRUE""#),
            (Function::ParseJson, "[1]", "[1]"),
            (Function::ParseJson, "1.50", "1.50"),
        ] {
            assert_eq!(run(&function, input).unwrap().unwrap(), output, "{function:?}");
        }
    }

    #[test]
    fn slug_of_latin_letters_has_ascii_letters_only() {
        // Letters of every Latin alphabet lose their accents; other scripts are left out.
        for (text, expected) in [
            ("Straße Æsir Þór", "strasse-aesir-thor"),
            ("Đặng Thị Hằng", "dang-thi-hang"),
            ("ŉ œuvre ıI", "n-oeuvre-ii"),
            ("naïve—Москва 東京 x", "naive-x"),
            ("a÷b×c", "a-b-c"),
        ] {
            assert_eq!(slug(text), expected, "{text}");
        }
        for c in '\u{80}'..='\u{2fff}' {
            let allowed = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit();
            assert!(slug(&c.to_string()).chars().all(allowed), "{c:?}");
        }
    }

    #[test]
    fn empty_result_is_missing_not_failed() {
        // If no text is left, the field is missing and no failure is counted.
        for (function, input) in [
            (Function::Digits, r#""abc""#),
            (Function::FirstWord, r#""  ""#),
            (Function::RestWords, r#""Ada ""#),
            (Function::Slug, r#""!!""#),
            (Function::ParseJson, r#""null""#),
        ] {
            assert_eq!(run(&function, input), Ok(None), "{function:?}");
        }
    }

    #[test]
    fn inapplicable_input_fails_with_a_reason() {
        // Arrays, objects and strings that a function cannot read are failures with a reason.
        for (function, input) in [
            (Function::Trim, "[1]"),
            (Function::Sha256, "{}"),
            (Function::UrlHost, r#""not a url""#),
            (Function::UrlHost, r#""mailto:a@b.c""#),
            (Function::UrlPath, r#""a b""#),
            (Function::UrlDecode, r#""%ff""#),
            (Function::ParseJson, r#""{x""#),
        ] {
            assert!(run(&function, input).is_err(), "{function:?}");
        }
    }
}
