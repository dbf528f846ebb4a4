<?php

declare(strict_types=1);

Ssa\StreamWrapper::register();
