//! Records of odd shapes, on which the tree must come to the crate's results: without them a
//! contestant could leave out most of the work, and the thousand records of the bench would not
//! show it.
//!
//! What a tree cannot know is not among them: which of two spellings of one name came first, how a
//! number was written, half a surrogate pair, nesting beyond a parser's patience.

use jiff::Timestamp;
use serde_json::Value;
use usercom_sink::mapping::{Input, Plan};
use usercom_sink::usercom::{Notes, encoded, plan_call};

use super::Mapper;

/// Fails unless mapper and plan make the same of a record, and note the same.
pub(super) fn compare(mapper: &Mapper, plan: &Plan, record: &str, now: Timestamp) {
    let mut noted = super::Notes::default();
    let made = mapper.bodies(record, now, &mut noted);
    let Some(expected) = expected(plan, record, now) else {
        assert!(made.is_err(), "refused by the crate only: {record}");
        return;
    };
    let made = made.unwrap_or_else(|fault| panic!("{fault}: {record}"));
    let made: Vec<Value> = made.iter().map(|body| unfolded(body)).collect();
    assert_eq!(made, expected.bodies, "{record}");
    assert_eq!(noted.unread, expected.unread, "{record}");
    let notes = expected.notes;
    assert_eq!(sorted(&noted.cropped), sorted(&notes.cropped), "{record}");
    assert_eq!(told(&noted.dropped), told(&notes.dropped), "{record}");
}

/// What the crate makes of a record.
struct Expected {
    bodies: Vec<Value>,
    notes: Notes,
    unread: u32,
}

/// Nothing where the crate refuses the record.
fn expected(plan: &Plan, record: &str, now: Timestamp) -> Option<Expected> {
    let mapped = plan.map(Input { body: record.as_bytes(), meta: None }).ok()?;
    let (mut bodies, mut notes) = (Vec::new(), Notes::default());
    for call in &mapped.calls {
        let ops = plan_call(&call.call, &crate::SETTINGS, now, &mut notes).ok()?;
        bodies.extend(ops.iter().filter_map(|op| encoded(op, now)).map(|body| unfolded(&body)));
    }
    Some(Expected { bodies, notes, unread: mapped.stats.conversions_failed })
}

/// A body with its lists, which travel as JSON text, as lists: a tree prints them in its own way.
fn unfolded(body: &str) -> Value {
    let mut body: Value = serde_json::from_str(body).expect("bodies are JSON");
    let fields = body.as_object_mut().expect("a body is an object");
    fields.values_mut().for_each(crate::unfold);
    if let Some(data) = fields.get_mut("data").and_then(Value::as_object_mut) {
        data.values_mut().for_each(crate::unfold);
    }
    body
}

/// A tree comes upon its values in another order.
fn sorted(texts: &[impl AsRef<str>]) -> Vec<&str> {
    let mut texts: Vec<&str> = texts.iter().map(AsRef::as_ref).collect();
    texts.sort_unstable();
    texts
}

fn told(dropped: &[(impl AsRef<str>, &'static str)]) -> Vec<(String, &'static str)> {
    let told = dropped.iter().map(|(field, why)| (field.as_ref().to_owned(), *why));
    let mut told: Vec<_> = told.collect();
    told.sort_unstable();
    told
}

/// The records.
pub(super) fn records() -> Vec<String> {
    let (long, longer) = ("long text ".repeat(30), "ż".repeat(300));
    let mut records: Vec<String> = FIXED.iter().map(|record| (*record).to_owned()).collect();
    records.extend([
        identify(&format!(
            r#""email":"{long}","firstName":"{longer}","phone":" +48 {long} ","city":"{long}","timezone":"{long}","note":"{long}","tags":"{long},b","avatar":"{longer}""#
        )),
        identify(
            r#""An_Attribute with a very long NAME too":3,"a name that is cut at a blank __ here":5,"an attribute with a very long name indeed":1,"an attribute with a very long name too":2,"ein sehr langer Name mit Umlauten äöü am Ende":4"#,
        ),
        format!(
            r#"{{"type":"track","userId":"u","event":" {long}","properties":{{"text":"{long}","list":["{longer}",1],"short":[1,{{"b":2}}]}}}}"#
        ),
        format!(r#"{{"type":"identify","userId":"{long}"}}"#),
        format!(
            r#"{{"type":"track","userId":"u","event":"deep","properties":{}1{}}}"#,
            r#"{"a":"#.repeat(24),
            "}".repeat(24)
        ),
        identify(&format!(r#""deep":{}"x"{}"#, r#"{"b":"#.repeat(24), "}".repeat(24))),
        format!(
            r#"{{"type":"group","userId":"u","groupId":"g","traits":{{"name":"{long}","phones":["{long}"," ",12,null],"address":{{"street":"{long}","zip":1}},"description":"{longer}"}}}}"#
        ),
    ]);
    records
}

fn identify(traits: &str) -> String {
    format!(r#"{{"type":"identify","userId":"u","traits":{{{traits}}}}}"#)
}

const FIXED: [&str; 35] = [
    // Spellings.
    r#"{"type":"identify","userId":"u","traits":{"First-Name":"Ada","LAST NAME":"King","EMAIL_ADDRESS":" a@b.c ","PhoneNumber":"+48 1 2","Company-Name":"x","Plan":"pro"}}"#,
    r#"{"type":"identify","userId":"u","traits":{"First-Name":"no","firstName":" ","first_name":"yes","given_name":"no","surname":"S","familyName":"F"}}"#,
    r#"{"type":"identify","userId":"u","traits":{"Address":{"City":"Łódź","Postal Code":"90-001","STATE":"łódzkie","country":"PL"}}}"#,
    r#"{"type":"identify","userId":"u","traits":{"address":{"city":"inner","state":"inner","country":"inner"},"city":"outer","state":"outer","region":"outer","country":"outer"}}"#,
    r#"{"type":"identify","userId":"u","traits":{"address.city":"dotted","company":{"custom_id":"c","name":"C","size":{"from":1,"to":null}},"company.custom_id":7}}"#,
    r#"{"type":"identify","userId":"u","traits":{"Avatar_Url":"https://x/y.png","Google-URL":"g","linkedin_url":"l","twitterURL":"t","FACEBOOK_URL":"f","\u212aey":1,"user_\u212aey":"k"}}"#,
    // Values of odd kinds.
    r#"{"type":"identify","userId":7,"traits":{"email":["x"],"firstName":5,"lastName":null,"phone":[1],"gender":3,"status":"VISITOR","score":"12","assigned_to":1.5,"unsubscribed":"Yes","notifications":0}}"#,
    r#"{"type":"identify","userId":true,"traits":{"gender":" Woman ","status":"nobody","score":-3,"assigned_to":"4","unsubscribed":false,"notifications":"maybe","user_key":" key "}}"#,
    r#"{"type":"identify","userId":"u","traits":{"gender":"other","status":2,"name":" Ada  Augusta King ","tags":"a, b,,a , c"}}"#,
    r#"{"type":"identify","userId":"u","traits":{"name":"Plato","tags":["x"," y ",1,true,null,{"z":1},["w"],"x",""]}}"#,
    r#"{"type":"identify","userId":"u","traits":{"name":["a"],"tags":{"a":1},"gender":{"x":"m"},"n":null,"yes":true,"no":false,"zero":0,"minus":-1.5,"empty":"","blank":" ","list":[1,"2",null],"none":[],"nothing":{}}}"#,
    r#"{"type":"identify","userId":"u","traits":{"a":{"b":{"c":{"d":{"e":"deep","f":[{"g":1}]}}}," k ":{"":"nameless"}},"":"gone"," ":"gone"}}"#,
    // Names that meet.
    r#"{"type":"identify","userId":"u","traits":{"first":{"name":"flat"},"first_name":"Ada","user":{"agent":"mine"},"OS":"own","Plan":"a","plan":"b"},"context":{"userAgent":"curl/8.0","os":{"name":"Linux"}}}"#,
    r#"{"type":"identify","userId":"u","traits":{" trimmed ":"x","A B":3,"a b":1,"a_b":2}}"#,
    r#"{"type":"identify","userId":"u","traits":{"custom":{"id":7},"First":{"Name":"flat"},"user":{"key":"k"},"Custom":{"ID":8}}}"#,
    r#"{"type":"group","userId":"u","groupId":"g","traits":{"custom":{"id":7},"postal":{"code":1}}}"#,
    // Who it is.
    r#"{"type":"identify","userId":"","user_id":"not read","anonymousId":"anon","traits":{"userId":"t"}}"#,
    r#"{"type":"identify","userId":null,"user_id":"second","traits":{"id":"t"}}"#,
    r#"{"type":"identify","traits":{"id":42,"email":"e"}}"#,
    r#"{"type":"identify","anonymousId":" ","traits":{"external_id":"ext"}}"#,
    r#"{"type":"identify","traits":{"email":"nobody@x.y"}}"#,
    r#"{"type":"identify","userId":["u"],"anonymousId":"anon","traits":"none","context":[1]}"#,
    r#"{"type":"alias","userId":"u","previousId":"p"}"#,
    // The context, and traits in it.
    r#"{"type":"identify","userId":"u","traits":{"email":"wins","plan":null,"address":{"city":"new"}},"context":{"traits":{"email":"loses","plan":"kept","address":{"city":"old","street":"gone"},"more":1},"locale":"pl","location":{"city":"L","country":"PL"},"timezone":"Europe/Warsaw"}}"#,
    r#"{"type":"identify","userId":"u","traits":{"city":["list"]},"context":{"userAgent":"Mozilla/5.0 (Windows NT 10.0; Win64; x64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/128.0.0.0 Safari/537.36","location":{"City":" L "},"ip":"[::1]","screen":{"width":"1920","height":1080.4},"device":{"model":"M"}}}"#,
    r#"{"type":"identify","userId":"u","context":{"userAgentData":{"brands":[{"brand":"Not)A;Brand","version":"8"},{"brand":"Chromium","version":"128"},{"brand":"Google Chrome","version":"128"}],"mobile":false},"OS":{"Name":"macOS","version":14},"screen":{"width":0,"height":5},"device":{"type":"iOS","name":" ","model":"iPhone"},"page":{"URL":"https://x.y/z"}}}"#,
    r#"{"type":"identify","userId":"u","context":{"userAgentData":{"brands":[{"brand":"Edge"}],"fullVersionList":[{"brand":"Microsoft Edge","version":"127.0.2651.105"},{"brand":"bad","version":7},5]},"locale":{"language":"pl"},"ip":5,"os":{"version":"1"}}}"#,
    // Companies.
    r#"{"type":"group","userId":"u","groupId":7,"traits":{"Company_Name":"C","employees":"120.0","phone":["+1 2","",5],"address":"one line","zip":"z","tags":"a,b","industry":"i"}}"#,
    r#"{"type":"group","userId":"u","groupId":" ","traits":{"group_id":"inner","Employee-Count":"11-50","city":"outer","address":{"line1":"S","city":"C","zipCode":5,"state":"R","country":["x"],"floor":3}}}"#,
    r#"{"type":"group","userId":"u","traits":{"groupId":"from the traits","size":12,"phone":7}}"#,
    // Pages and their addresses.
    r#"{"type":"page","userId":"u","timestamp":1767225600123,"context":{"page":{"url":"HTTP://Shop.Example.COM:8080/a/../b?q#f"}}}"#,
    r#"{"type":"page","userId":"u","timestamp":"2999-01-01T00:00:00Z","properties":{"url":"shop.example.com/x?y","path":"bare/path?q"}}"#,
    r#"{"type":"page","userId":"u","timestamp":"2026-01-02","properties":{"path":"/only"},"context":{"app":{"name":"App","namespace":"com.app"},"url":"//cdn.example.com/żółw"}}"#,
    // Events.
    r#"{"type":"track","userId":"u","event":3,"timestamp":"never","properties":{"a":{"b":1},"a_b":2," c ":{" d ":[1,{"e":2}],"":0},"n":null,"t":" kept ","f":1.5,"big":18446744073709551615}}"#,
    r#"{"type":"track","userId":"u","event":{"no":"name"},"properties":[1]}"#,
];
