// An unmodified Linux drives our controller and card in v86, and its panics survive it. Run by `npm run test:v86`, which
// fails where it cannot run; `node dist/tests/v86/linux.js PATTERN` runs the tests that PATTERN matches.
import { test } from "uvu";
import "./card.js";
import "./panic.js";

test.run();
