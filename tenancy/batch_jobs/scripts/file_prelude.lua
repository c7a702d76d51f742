-- Put before every script about one file.  KEYS: [1] files [2] file-users [3] file-ends [4] files-of
local FILES, FILE_USERS, FILE_ENDS, FILES_OF = KEYS[1], KEYS[2], KEYS[3], KEYS[4]
