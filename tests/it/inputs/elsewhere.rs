//! Where those numbers of the list are tested that need more than bytes on a connection.

use std::ops::RangeInclusive;
use std::path::Path;

/// Numbers, file, test.
const TESTED: &[(RangeInclusive<u16>, &str, &str)] = &[
    (38..=38, "hygiene.rs", "the_body_of_a_request_to_an_inline_route_is_never_served_as_a_request"),
    (39..=39, "hygiene.rs", "two_requests_of_which_the_first_expects_100_continue_get_two_answers_in_order"),
    (56..=56, "hygiene.rs", "noise_is_refused_on_both_listeners_and_harms_nobody"),
    (61..=61, "tokens.rs", "a_token_without_a_signature_opens_nothing_however_none_is_spelled"),
    (62..=63, "tokens.rs", "a_token_cannot_choose_another_algorithm_than_its_keys"),
    (64..=67, "tokens.rs", "a_header_brings_no_key_of_its_own_and_nobody_is_asked_for_one"),
    (68..=68, "tokens.rs", "a_token_cannot_choose_another_algorithm_than_its_keys"),
    (69..=69, "tokens.rs", "a_signature_is_taken_whole_or_not_at_all"),
    (70..=70, "tokens.rs", "claims_that_are_missing_odd_or_doubled_open_nothing"),
    (71..=71, "tokens.rs", "expiry_and_beginning_have_a_leeway_of_five_seconds_and_no_more"),
    (72..=76, "tokens.rs", "claims_that_are_missing_odd_or_doubled_open_nothing"),
    (77..=77, "tokens.rs", "a_token_of_another_type_opens_no_session"),
    (78..=78, "tokens.rs", "json_that_readers_disagree_about_is_no_token"),
    (79..=82, "tokens.rs", "there_is_one_spelling_of_the_compact_form"),
    (83..=84, "tokens.rs", "size_and_depth_of_a_token_cost_nothing"),
    (87..=87, "headers.rs", "a_spoofed_identity_never_reaches_the_application"),
    (89..=89, "headers.rs", "who_is_slowed_stays_slowed_under_a_made_up_address"),
    (90..=90, "headers.rs", "a_proxy_protocol_line_from_anybody_opens_no_connection"),
    (129..=132, "inputs/http2.rs", "http_2_messages_that_must_not_become_http_1_ones_end_before_the_application"),
    (133..=133, "hosts.rs", "a_request_is_routed_by_its_host_and_not_by_the_name_that_chose_the_certificate"),
    (136..=136, "hosts.rs", "without_a_server_name_that_is_ours_there_is_no_handshake"),
    (137..=138, "hosts.rs", "old_tls_weak_suites_and_absurd_names_get_an_alert"),
    (153..=154, "cookies.rs", "two_cookies_of_our_name_count_as_none"),
    (155..=155, "cookies.rs", "http_2_crumbs_are_one_session_and_the_application_gets_one_line"),
    (156..=158, "cookies.rs", "another_spelling_is_another_cookie"),
    (159..=159, "cookies.rs", "a_quoted_value_is_no_token"),
    (160..=160, "cookies.rs", "another_spelling_is_another_cookie"),
    (161..=161, "cookies.rs", "two_hundred_cookies_arrive_whole_and_in_order"),
    (162..=162, "cookies.rs", "our_cookies_are_host_only_secure_and_cleared_as_they_were_set"),
    (163..=163, "cookies.rs", "an_application_sets_its_own_cookies_and_none_of_ours"),
    (164..=164, "cookies.rs", "a_sibling_host_cannot_plant_our_cookies_in_chromium"),
    (165..=165, "cookies.rs", "our_cookies_are_host_only_secure_and_cleared_as_they_were_set"),
    (166..=166, "cookies.rs", "an_application_sets_its_own_cookies_and_none_of_ours"),
    (167..=168, "cookies.rs", "odd_octets_and_empty_fields_harm_nobody"),
    (209..=211, "inputs/http2.rs", "http_2_messages_that_must_not_become_http_1_ones_end_before_the_application"),
];

/// Numbers that ask for something that is not there, and what that is.
pub const NOT_THERE: &[(RangeInclusive<u16>, &str)] =
    &[(134..=135, "client certificates, so no host asks for one and none can be gone round")];

pub fn numbers() -> Vec<u16> {
    let tested = TESTED.iter().map(|(numbers, ..)| numbers);
    tested.chain(NOT_THERE.iter().map(|(numbers, _)| numbers)).cloned().flatten().collect()
}

#[test]
fn what_is_said_to_be_tested_elsewhere_is_tested_there() {
    for (numbers, file, test) in TESTED {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/it").join(file);
        let source = std::fs::read_to_string(&path).unwrap_or_else(|error| panic!("{file}: {error}"));
        assert!(source.contains(&format!("#[test]\nfn {test}() {{")), "{numbers:?}: {file} has no test {test}");
    }
}
