//! The functions of `then`.
//!
//! All of them work on text. Numbers and booleans are taken as their text; arrays and objects are
//! not applicable, except for `to_json`, which renders anything, and `parse_json`, which leaves
//! them as they are. After `split` a function runs on each part. Where the answer is no text at
//! all (`first_word` of nothing but white space, `digits` of a word), the field is missing, which
//! is not counted as a failure.

use std::borrow::Cow;

use percent_encoding::percent_decode_str;
use sha2::{Digest, Sha256};
use url::{Url, form_urlencoded};

use super::datum::Datum;
use super::fields::FieldSet;
use super::json;
use crate::call::{self, Json};
use crate::config::mapping::Function;

/// What a function makes of a value: a value, nothing, or a reason why it cannot.
pub(super) fn apply(function: Function, datum: Datum<'_>) -> Result<Option<Datum<'_>>, String> {
    if function == Function::ToJson {
        let text = match datum.into_raw() {
            Cow::Borrowed(raw) => call::canonical(raw),
            Cow::Owned(raw) => Cow::Owned(call::canonical(&raw).into_owned()),
        };
        return Ok(Some(Datum::Text(text)));
    }
    let text = match datum.into_text() {
        Ok(text) => text,
        Err(other) if function == Function::ParseJson => return Ok(Some(other)),
        Err(other) => {
            let (name, kind) = (name(function), other.kind().name());
            return Err(format!("`{name}` does not apply to {kind}"));
        }
    };
    match function {
        Function::ParseJson => parse_json(text),
        Function::ParseQuery => Ok(Some(parse_query(&text))),
        _ => Ok(of_text(function, text)?.map(Datum::Text)),
    }
}

fn of_text(function: Function, text: Cow<'_, str>) -> Result<Option<Cow<'_, str>>, String> {
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
        Function::Sha256 => hex(&Sha256::digest(text.as_bytes())).into(),
        Function::UrlHost => url_host(&text)?.into(),
        Function::UrlPath => url_path(&text)?.into(),
        Function::UrlDecode => percent_decode_str(&text)
            .decode_utf8()
            .map_err(|_| "the percent-encoding does not decode to UTF-8".to_owned())?
            .into_owned()
            .into(),
        Function::Slug => return Ok(some_text(slug(&text))),
        Function::ToJson | Function::ParseJson | Function::ParseQuery => text,
    };
    Ok(Some(result))
}

/// The function's name in the mapping table.
fn name(function: Function) -> &'static str {
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
    }
}

fn some_text<'a>(text: String) -> Option<Cow<'a, str>> {
    (!text.is_empty()).then_some(Cow::Owned(text))
}

/// Applies a function that only cuts, without copying borrowed text.
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

fn hex(bytes: &[u8]) -> String {
    let digit = |n: u8| char::from_digit(u32::from(n), 16).unwrap_or('0');
    let pairs = bytes.iter().flat_map(|b| [digit(b >> 4), digit(b & 15)]);
    pairs.collect()
}

fn url_host(text: &str) -> Result<String, String> {
    let url = Url::parse(text.trim()).map_err(|e| format!("no URL: {e}"))?;
    let host = url.host_str().filter(|host| !host.is_empty());
    host.map(str::to_owned).ok_or_else(|| "the URL has no host".to_owned())
}

/// The path of a URL, or of a path with a query behind it.
fn url_path(text: &str) -> Result<String, String> {
    let text = text.trim();
    if text.starts_with('/') && !text.starts_with("//") {
        let end = text.find(['?', '#']).unwrap_or(text.len());
        return Ok(text[..end].to_owned());
    }
    let url = Url::parse(text).map_err(|e| format!("no URL: {e}"))?;
    Ok(url.path().to_owned())
}

fn parse_json(text: Cow<'_, str>) -> Result<Option<Datum<'_>>, String> {
    if !json::is_valid(&text) {
        return Err(format!("{} is not JSON", json::excerpt(&format!("{text:?}"))));
    }
    Ok(Datum::from_json(slice(text, |t| t.trim_matches([' ', '\t', '\n', '\r']))))
}

/// A query string, with or without its question mark, as an object of texts. A name given several
/// times has a list.
fn parse_query<'a>(text: &str) -> Datum<'a> {
    let query = text.strip_prefix('?').unwrap_or(text);
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
    let mut set = FieldSet::default();
    for (name, mut values) in all {
        let value = match values.len() {
            1 => values.remove(0),
            _ => json::render_array(&values),
        };
        set.insert(name.into(), Json::trusted(value));
    }
    Datum::Object(set.into_fields())
}

/// Lower case ASCII letters and digits, in groups joined by single hyphens. Latin letters lose
/// their accents; other scripts are left out.
fn slug(text: &str) -> String {
    let mut out = String::new();
    let mut gap = false;
    for c in text.chars().flat_map(char::to_lowercase) {
        let letters = fold(c);
        if letters.is_empty() {
            // A combining accent belongs to its letter and separates nothing.
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

/// A lower case letter or digit in ASCII; empty where it has none.
fn fold(c: char) -> Cow<'static, str> {
    let folded = match c {
        'a'..='z' | '0'..='9' => return c.to_string().into(),
        'à'..='å'
        | 'ā'
        | 'ă'
        | 'ą'
        | 'ǎ'
        | 'ạ'
        | 'ả'
        | 'ấ'
        | 'ầ'
        | 'ẩ'
        | 'ẫ'
        | 'ậ'
        | 'ắ'
        | 'ằ'
        | 'ẳ'
        | 'ẵ'
        | 'ặ'
        | 'ª' => "a",
        'æ' => "ae",
        'ç' | 'ć' | 'ĉ' | 'ċ' | 'č' => "c",
        'ď' | 'đ' | 'ð' => "d",
        'è'..='ë' | 'ē' | 'ĕ' | 'ė' | 'ę' | 'ě' | 'ẹ' | 'ẻ' | 'ẽ' | 'ế' | 'ề' | 'ể' | 'ễ' | 'ệ' => {
            "e"
        }
        'ĝ' | 'ğ' | 'ġ' | 'ģ' => "g",
        'ĥ' | 'ħ' => "h",
        'ì'..='ï' | 'ĩ' | 'ī' | 'ĭ' | 'į' | 'ı' | 'ị' | 'ỉ' => "i",
        'ĵ' => "j",
        'ķ' => "k",
        'ĺ' | 'ļ' | 'ľ' | 'ŀ' | 'ł' => "l",
        'ñ' | 'ń' | 'ņ' | 'ň' | 'ŉ' => "n",
        'ò'..='ö'
        | 'ø'
        | 'ō'
        | 'ŏ'
        | 'ő'
        | 'ơ'
        | 'ọ'
        | 'ỏ'
        | 'ố'
        | 'ồ'
        | 'ổ'
        | 'ỗ'
        | 'ộ'
        | 'ớ'
        | 'ờ'
        | 'ở'
        | 'ỡ'
        | 'ợ'
        | 'º' => "o",
        'œ' => "oe",
        'ŕ' | 'ŗ' | 'ř' => "r",
        'ś' | 'ŝ' | 'ş' | 'š' | 'ș' => "s",
        'ß' => "ss",
        'ţ' | 'ť' | 'ŧ' | 'ț' => "t",
        'þ' => "th",
        'ù'..='ü'
        | 'ũ'
        | 'ū'
        | 'ŭ'
        | 'ů'
        | 'ű'
        | 'ų'
        | 'ư'
        | 'ụ'
        | 'ủ'
        | 'ứ'
        | 'ừ'
        | 'ử'
        | 'ữ'
        | 'ự' => "u",
        'ŵ' => "w",
        'ý' | 'ÿ' | 'ŷ' | 'ỳ' | 'ỵ' | 'ỷ' | 'ỹ' => "y",
        'ź' | 'ż' | 'ž' => "z",
        _ => "",
    };
    folded.into()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn run(function: Function, json: &'static str) -> Result<Option<String>, String> {
        let datum = Datum::from_json(json).unwrap();
        apply(function, datum).map(|made| made.map(|d| d.into_raw().into_owned()))
    }

    #[test]
    fn every_function_on_text() {
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
            assert_eq!(run(function, input).unwrap().unwrap(), output, "{function:?}");
        }
    }

    #[test]
    fn nothing_is_not_a_failure() {
        // Where no text is left the field is missing, without counting a failure.
        for (function, input) in [
            (Function::Digits, r#""abc""#),
            (Function::FirstWord, r#""  ""#),
            (Function::RestWords, r#""Ada ""#),
            (Function::Slug, r#""!!""#),
            (Function::ParseJson, r#""null""#),
        ] {
            assert_eq!(run(function, input), Ok(None), "{function:?}");
        }
    }

    #[test]
    fn failures_are_told() {
        // Arrays, objects and texts a function cannot read are failures with a reason.
        for (function, input) in [
            (Function::Trim, "[1]"),
            (Function::Sha256, "{}"),
            (Function::UrlHost, r#""not a url""#),
            (Function::UrlHost, r#""mailto:a@b.c""#),
            (Function::UrlPath, r#""a b""#),
            (Function::UrlDecode, r#""%ff""#),
            (Function::ParseJson, r#""{x""#),
        ] {
            assert!(run(function, input).is_err(), "{function:?}");
        }
    }
}
