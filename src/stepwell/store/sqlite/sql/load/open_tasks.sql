select {t.task} from json_each(?1) as e join task as t on t.no between e.value << 20 and (e.value << 20 | 1048575)
where t.state <> 'done'
