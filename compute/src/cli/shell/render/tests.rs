use super::*;

fn cells() -> Vec<Cell> {
    vec![
        Cell::Integer(i64::MAX),
        Cell::Real(1.0),
        Cell::Text("a,\"b\"".into()),
        Cell::Blob(vec![1, 0xab]),
        Cell::Null,
        Cell::Text(String::new()),
        Cell::Infinite,
    ]
}

fn printed(mode: Mode, headers: Option<bool>, rows: &[Vec<Cell>]) -> String {
    let names = ["i", "real", "t", "b", "n", "e", "x"].map(String::from);
    let width = rows.first().map_or(names.len(), Vec::len);
    let mut out = Vec::new();
    let style = Style { mode, headers, for_terminal: true };
    let mut printer = Printer::new(&mut out, style);
    printer.columns(names[..width].to_vec()).expect("columns");
    for row in rows {
        printer.row(row.clone()).expect("row");
    }
    printer.finish().expect("end");
    String::from_utf8(out).expect("UTF-8")
}

#[test]
fn list_has_bars_and_no_names_unless_asked() {
    let row = "9223372036854775807|1.0|a,\"b\"|X'01ab'|||±Inf\n";
    assert_eq!(printed(Mode::List, None, &[cells()]), row);
    assert_eq!(printed(Mode::List, Some(true), &[cells()]), format!("i|real|t|b|n|e|x\n{row}"));
}

#[test]
fn csv_quotes_what_needs_it_and_tells_null_from_empty() {
    let row = "9223372036854775807,1.0,\"a,\"\"b\"\"\",X'01ab',,\"\",±Inf\n";
    assert_eq!(printed(Mode::Csv, None, &[cells()]), row);
    assert_eq!(printed(Mode::Csv, Some(true), &[]), "i,real,t,b,n,e,x\n");
    assert_eq!(csv_text("a\nb"), "\"a\nb\"");
    assert_eq!(csv_text(" a"), "\" a\"");
}

#[test]
fn json_is_an_array_of_objects() {
    let object = r#"{"i":9223372036854775807,"real":1.0,"t":"a,\"b\"","b":"Aas=","n":null,"e":"","x":null}"#;
    assert_eq!(printed(Mode::Json, None, &[cells()]), format!("[{object}]\n"));
    let two = printed(Mode::Json, None, &[cells(), cells()]);
    assert_eq!(two, format!("[{object},\n{object}]\n"));
    assert!(serde_json::from_str::<serde_json::Value>(&two).is_ok());
    assert_eq!(printed(Mode::Json, None, &[]), "[]\n");
}

#[test]
fn line_has_one_value_a_line() {
    let row = vec![Cell::Integer(1), Cell::Null];
    assert_eq!(printed(Mode::Line, None, &[row.clone(), row]), "   i = 1\nreal = NULL\n\n   i = 1\nreal = NULL\n");
}

#[test]
fn a_table_has_a_frame_and_names() {
    let rows = [vec![Cell::Integer(1), Cell::Null], vec![Cell::Integer(20), Cell::Real(0.5)]];
    let expected = "\
+----+------+
| i  | real |
+----+------+
| 1  | NULL |
| 20 | 0.5  |
+----+------+
";
    assert_eq!(printed(Mode::Table, None, &rows), expected);
    assert_eq!(printed(Mode::Table, None, &[]), "", "no rows, nothing");
}

#[test]
fn a_statement_without_a_result_prints_nothing() {
    for mode in [Mode::Table, Mode::List, Mode::Csv, Mode::Json, Mode::Line] {
        let mut out = Vec::new();
        let style = Style { mode, headers: Some(true), for_terminal: false };
        let mut printer = Printer::new(&mut out, style);
        printer.columns(Vec::new()).expect("no columns");
        printer.finish().expect("end");
        assert!(out.is_empty(), "{mode:?}");
    }
}

#[test]
fn a_value_cannot_command_the_terminal() {
    let evil = vec![Cell::Text("\x1b[2J\u{9b}x\x7f\ta\nb".into())];
    assert_eq!(printed(Mode::List, None, std::slice::from_ref(&evil)), "^[[2J\u{fffd}x^?\ta\nb\n");
    let table = printed(Mode::Table, Some(false), &[evil]);
    assert!(table.contains("| ^[[2J\u{fffd}x^?^Ia |\n| b "), "{table}");
}
