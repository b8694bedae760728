// The list of runs follows by itself.

import { follow } from "./live.js";

follow(() => true);
