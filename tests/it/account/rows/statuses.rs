//! Every status, once on every route.

use std::sync::atomic::{AtomicUsize, Ordering};

use super::{ALL, Row, row, usual};
use crate::account::behaviour::{Behaviour, Effect, Route, When};
use crate::support::stub::{Answer, answer, json as api, page};

/// The routes that a run uses.
const ROUTES: [Route; 11] = [
    Route::AttributeList,
    Route::AttributeCreate,
    Route::Upsert,
    Route::UserRead,
    Route::Event,
    Route::EventHistory,
    Route::View,
    Route::ViewHistory,
    Route::CompanyUpsert,
    Route::CompanyCreate,
    Route::AddMember,
];

/// Statuses that halt the run: they are a matter of their own.
const HALTS: [u16; 2] = [401, 402];

/// Of each route every third request is answered by the next of these statuses.
fn each_in_turn(
    statuses: impl Iterator<Item = u16> + Clone,
    effect: Effect,
    make: fn(u16) -> Answer,
) -> Behaviour {
    let statuses: Vec<u16> = statuses.filter(|status| !HALTS.contains(status)).collect();
    let mut behaviour = usual();
    for route in ROUTES {
        let (statuses, next) = (statuses.clone(), AtomicUsize::new(0));
        behaviour = behaviour.on(&[route], When::Every(3), effect, move |_, _| {
            make(statuses[next.fetch_add(1, Ordering::Relaxed) % statuses.len()])
        });
    }
    behaviour
}

fn detail(status: u16) -> Answer {
    api(status, r#"{"detail":"no"}"#)
}

fn empty(status: u16) -> Answer {
    answer(status, &[], "")
}

fn elsewhere(status: u16) -> Answer {
    answer(status, &[("Location", "http://127.0.0.1:9/login/")], "")
}

/// All rows of this file.
pub(super) fn rows() -> Vec<Row> {
    let refused = &["status_", "rejected", "route_closed"];
    let not_taken = Effect::NotApplied;
    vec![
        row("each of 400 to 429 in turn", each_in_turn(400..430, not_taken, detail)).dead(refused),
        row("each of 430 to 459 in turn", each_in_turn(430..460, not_taken, detail)).dead(refused),
        row("each of 460 to 499 in turn", each_in_turn(460..500, not_taken, empty)).dead(refused),
        row("each of 500 to 529 in turn", each_in_turn(500..530, not_taken, detail)).dead(refused),
        row("each of 530 to 599 in turn", each_in_turn(530..600, not_taken, empty)).dead(refused),
        row("each of 500 to 529 after the work", each_in_turn(502..530, Effect::Applied, detail))
            .dead(refused),
        row("each of 600 to 999 after the work", each_in_turn(600..1000, Effect::Applied, empty)),
        row("each of 300 to 399 in turn", each_in_turn(300..400, not_taken, elsewhere)),
        row("each of 200 to 299 as success", each_in_turn(200..300, Effect::Applied, empty)),
        row("each web page of 400 to 599", each_in_turn(400..600, not_taken, page)),
        row("a web page with 401 for 2 s", {
            let for_a_while = super::seconds(0.3, 2.3);
            usual().on(ALL, for_a_while, not_taken, |_, _| page(401))
        }),
    ]
}
